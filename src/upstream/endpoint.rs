//! One address of an upstream: what it is asked, and as whom.

use super::answers::{BlobHead, FetchedBlob, FetchedManifest, ManifestHead};
use super::error::{ErrorKind, Failure, SetupError, UpstreamError};
use crate::config::Environment;
use crate::config::{CredentialSettings, Limits, UpstreamSettings};
use crate::oci::{Accept, Digest, Name, Reference, Registry};
use crate::telemetry::Metrics;
use crate::upstream::auth::caller::Callers;
use crate::upstream::auth::credential::{self, Memo, Place};
use crate::upstream::auth::scope::Scope;
use crate::upstream::auth::session::Session;
use crate::upstream::auth::token_client::TokenClient;
use crate::upstream::auth::tokens::Tokens;
use crate::upstream::limits::documents::Documents;
use crate::upstream::limits::op::Op;
use crate::upstream::limits::rate::Rate;
use crate::upstream::limits::throttle::Throttle;
use crate::upstream::protocol::answer::Answer;
use crate::upstream::protocol::client::HttpClient;
use crate::upstream::protocol::fetch::{Ask, header};
use crate::upstream::protocol::relayed::{Passers, Relayed};
use crate::upstream::protocol::{document, list};
use crate::upstream::transport::body::UpstreamBody;
use crate::upstream::transport::connect::Connector;
use crate::upstream::transport::inside::Border;
use crate::upstream::transport::network::Network;
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::pool::Pool;
use http::header::{ACCEPT, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use parking_lot::Mutex;
use std::sync::Arc;

/// Refresh tokens of exchanges: one per token service, of which an upstream has one.
const EXCHANGES: usize = 4;

/// One address of an upstream: its own, or a mirror's. Cloning is cheap; clones share connections and tokens.
#[derive(Clone)]
pub(super) struct Endpoint(Arc<Inner>);

struct Inner {
    name: Registry,
    /// The name for messages, with the host if it is a mirror's.
    shown: String,
    origin: Origin,
    session: Arc<Session>,
    callers: Option<Callers>,
    rate: Option<Arc<Rate>>,
    sealed: bool,
    metrics: Arc<Metrics>,
    /// Whether there are other addresses of the same content.
    has_others: bool,
    documents: Documents,
}

/// What the addresses of one upstream are made of.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a UpstreamSettings,
    pub(super) limits: &'a Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) environment: &'a Environment,
    pub(super) network: &'a Network,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) passers: Arc<Passers>,
}

impl Endpoint {
    /// The upstream's own address, or that of a mirror.
    pub(super) fn new(parts: &Parts<'_>, mirror: Option<&Uri>) -> Result<Self, SetupError> {
        let Parts { settings, limits, environment, .. } = *parts;
        let (metrics, resolver) = (Arc::clone(&parts.metrics), parts.network.resolver.clone());
        let name = settings.name.clone();
        let url = mirror.unwrap_or(&settings.url);
        let origin = origin_of(url, &name)?;
        let ca_file = settings.ca_file.as_deref();
        let place =
            Place { name: &name, origin: &origin, ca_file, environment, resolver: &resolver, metrics: &metrics };
        let border = Border::new(name.as_str(), &origin, &settings.token_realms, &settings.data_hosts);
        let to_host = resolver.clone();
        let connector = Connector::new(name.as_str(), ca_file, environment, to_host, border, settings.connect_timeout)?;
        let told = if mirror.is_none() { settings.connect.clone() } else { Vec::new() };
        let connector = connector.within(parts.network).dialling(&origin, told);
        let ask_again = settings.freshness.revalidate_wait;
        let pool = Pool::new(connector, limits.upstream_connections, settings.first_byte_timeout, ask_again);
        let (stall, sealed) = (settings.stall_timeout, settings.sealed);
        let throttle = Throttle::new(settings.tier);
        let passers = Arc::clone(&parts.passers);
        let client =
            Arc::new(HttpClient::new(name.clone(), pool, Arc::clone(&metrics), stall, throttle, passers, sealed));
        // A mirror may be anybody's: it gets the login if the operator has named it for that, and not over a weaker scheme.
        let trusted = mirror.is_none()
            || Origin::of(&settings.url).is_some_and(|own| own.trusts(&origin, &settings.token_realms));
        let credential = if trusted { &settings.credential } else { &CredentialSettings::Anonymous };
        let token_client = TokenClient {
            name: name.clone(),
            origin: origin.clone(),
            token_realms: settings.token_realms.clone(),
            login: Memo::new(credential::source(credential, place)?),
            client: Arc::clone(&client),
            metrics: Arc::clone(&metrics),
            exchanged: Tokens::new(EXCHANGES),
            exchanged_for: Mutex::default(),
            strict: false,
        };
        let session = Arc::new(Session::new(client, token_client, limits.tokens));
        let callers = (*credential == CredentialSettings::Caller).then(Callers::new);
        let shown = if mirror.is_some() { format!("{name}'s mirror {origin}") } else { name.to_string() };
        let rate = parts.rate.clone();
        Ok(Self(Arc::new(Inner {
            name,
            shown,
            origin,
            session,
            callers,
            rate,
            sealed,
            metrics,
            documents: parts.network.documents.clone(),
            has_others: mirror.is_none() && !settings.mirrors.is_empty(),
        })))
    }

    pub(super) fn client(&self) -> &HttpClient {
        &self.0.session.client
    }

    /// The name for messages, with the host if it is a mirror's.
    pub(super) fn shown(&self) -> &str {
        &self.0.shown
    }

    pub(super) fn name(&self) -> &Registry {
        &self.0.name
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.0.sealed
    }

    /// Asks whether a manifest is there, and which one a tag means.
    pub(super) async fn head_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestHead, UpstreamError> {
        let head = async {
            let ask = self.manifest(Op::ManifestHead, Method::HEAD, repository, reference, document::MANIFESTS)?;
            let answer = self.session().head_of_manifest(&ask).await?;
            if let Some((answer, digest)) = answer.and_then(|answer| answer.digest().map(|digest| (answer, digest))) {
                let length = answer.length();
                return Ok(ManifestHead {
                    digest: Some(digest),
                    media_type: answer.media_type(),
                    length,
                    document: None,
                    relayed: Relayed::of(&answer.headers),
                });
            }
            let ask = self.manifest(Op::ManifestGet, Method::GET, repository, reference, document::MANIFESTS)?;
            let document = self
                .session()
                .fetch_whole(&ask, |answer| document::manifest(answer, reference, &self.0.documents))
                .await?;
            let media_type = Some(document.media_type.clone());
            let (digest, length) = (document.digest, Some(document.content.len() as u64));
            let relayed = document.relayed.clone();
            Ok(ManifestHead { digest, media_type, length, document: Some(document), relayed })
        };
        self.done(head.await, || format!("ask for manifest {reference} of {repository}"))
    }

    /// Fetches a manifest; without `accept` as whatever type it is stored.
    pub(super) async fn get_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        accept: &Accept,
    ) -> Result<FetchedManifest, UpstreamError> {
        let accepted = accept.to_line();
        let accepted = if accepted.is_empty() { document::MANIFESTS } else { &accepted };
        let fetched = async {
            let ask = self.manifest(Op::ManifestGet, Method::GET, repository, reference, accepted)?;
            self.session().fetch_whole(&ask, |answer| document::manifest(answer, reference, &self.0.documents)).await
        };
        self.done(fetched.await, || format!("fetch manifest {reference} of {repository}"))
    }

    /// Asks whether a blob is there.
    pub(super) async fn head_blob(&self, repository: &Name, digest: &Digest) -> Result<BlobHead, UpstreamError> {
        let head = async {
            let ask = self.blob(Op::BlobHead, Method::HEAD, repository, digest)?;
            let (answer, told) = self.session().fetch_head(ask).await?;
            let length = match answer.status {
                StatusCode::PARTIAL_CONTENT => part_of(&answer).and_then(|(_, length)| length),
                _ => answer.length(),
            };
            // Whoever names the digest is a registry as well.
            let speaks = told.digest.map_or(told.is_speaker, |named| named == digest.to_string());
            Ok(BlobHead { length, speaks })
        };
        self.done(head.await, || format!("ask for blob {digest} of {repository}"))
    }

    /// Fetches a blob, or the bytes from a first to a last one, inclusive and perhaps open.
    pub(super) async fn get_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        let attempt = format!("fetch blob {digest} of {repository} from {}", self.0.shown);
        let fetched = async {
            let mut ask = self.blob(Op::BlobGet, Method::GET, repository, digest)?;
            if let Some((first, last)) = range {
                let last = last.map(|last| last.to_string()).unwrap_or_default();
                ask.headers.insert(RANGE, header(&format!("bytes={first}-{last}"))?);
            }
            let answer = self.session().fetch(&ask).await?;
            let (start, length) = extent(&answer, range.map(|(first, _)| first))?;
            let page = document::doubtful_page(&answer, range.is_some(), self.0.has_others)?;
            Ok(FetchedBlob {
                relayed: Relayed::of(&answer.headers),
                start,
                length,
                page: page.map(|failure| failure.during(attempt.clone())),
                body: UpstreamBody::new(answer.body, attempt.clone(), self.0.rate.clone()),
                address: 0,
            })
        };
        self.done(fetched.await, || format!("fetch blob {digest} of {repository}"))
    }

    /// Fetches one page of a list.
    pub(super) async fn get_list(&self, request: list::ListRequest) -> Result<list::FetchedList, UpstreamError> {
        let attempt = request.attempt();
        let referrers = request.referrers_of();
        let fetched = async {
            let ask = request.ask(|path| self.url(path))?;
            self.session().fetch_whole(&ask, |answer| list::page(&ask, answer, &self.0.documents)).await
        };
        let fetched = match (fetched.await, referrers) {
            (Err(failure), Some((repository, digest))) => {
                Err(self.without_referrers(failure, &repository, &digest).await)
            }
            (fetched, _) => fetched,
        };
        self.done(fetched, || attempt)
    }

    /// What a failure to list referrers means: that the registry has no such list where it refuses the question and speaks otherwise. A
    /// refusal that is not in the protocol's words may be a portal's: then the manifest itself is asked for.
    async fn without_referrers(&self, failure: Failure, repository: &Name, digest: &Digest) -> Failure {
        let speaks = match list::lacks_referrers(&failure) {
            list::Lacks::No => return failure,
            list::Lacks::Said => true,
            list::Lacks::Perhaps => {
                let subject = Reference::Digest(*digest);
                match self.manifest(Op::ManifestHead, Method::HEAD, repository, &subject, document::MANIFESTS) {
                    Ok(ask) => self.session().speaks(&ask).await,
                    Err(_) => false,
                }
            }
        };
        if speaks { list::no_referrers(&failure) } else { failure }
    }

    /// Asks whether the registry answers at all, and takes the login if there is one.
    pub(super) async fn ping(&self) -> Result<(), UpstreamError> {
        let answered = async {
            if self.is_asked_as_callers() {
                // Nobody asks: that it asks for a login says enough.
                return self.0.session.is_guarded().await.map(drop);
            }
            let ask = Ask {
                op: Op::Ping,
                method: Method::GET,
                url: self.url("/v2/")?,
                headers: HeaderMap::new(),
                scope: Scope::Registry,
            };
            self.session().fetch(&ask).await?.body.drain().await;
            Ok(())
        };
        self.done(answered.await, || "get an answer".to_owned())
    }

    pub(super) fn manifest(
        &self,
        op: Op,
        method: Method,
        repository: &Name,
        reference: &Reference,
        accept: &str,
    ) -> Result<Ask, Failure> {
        let url = self.url(&format!("/v2/{repository}/manifests/{reference}"))?;
        let headers = HeaderMap::from_iter([(ACCEPT, header(accept)?)]);
        Ok(Ask { op, method, url, headers, scope: Scope::Pull(repository.clone()) })
    }

    fn blob(&self, op: Op, method: Method, repository: &Name, digest: &Digest) -> Result<Ask, Failure> {
        let url = self.url(&format!("/v2/{repository}/blobs/{digest}"))?;
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]);
        Ok(Ask { op, method, url, headers, scope: Scope::Pull(repository.clone()) })
    }

    /// How it is asked as larder, and its callers if it is asked as them.
    pub(super) fn own_session(&self) -> (&Arc<Session>, Option<&Callers>) {
        (&self.0.session, self.0.callers.as_ref())
    }

    pub(super) fn url(&self, path: &str) -> Result<Uri, Failure> {
        let url = format!("{}://{}{path}", self.0.origin.scheme(), self.0.origin.authority());
        url.parse().map_err(|_| {
            let message = format!("'{path}' cannot be asked for");
            let kind = ErrorKind::Rejected {
                status: 400,
                code: "UNSUPPORTED".to_owned(),
                message: message.clone(),
                about: Vec::new(),
            };
            Failure::new(kind, message)
        })
    }

    /// Says what was attempted where, and keeps the gauge.
    pub(super) fn done<T>(
        &self,
        outcome: Result<T, Failure>,
        attempt: impl FnOnce() -> String,
    ) -> Result<T, UpstreamError> {
        self.settled(outcome, || format!("{} from {}", attempt(), self.0.shown))
    }

    /// As [`Self::done`], for what is not fetched from there: `attempt` says where.
    pub(super) fn settled<T>(
        &self,
        outcome: Result<T, Failure>,
        attempt: impl FnOnce() -> String,
    ) -> Result<T, UpstreamError> {
        let outcome = outcome.map_err(|failure| self.of_caller(failure));
        let up = outcome.as_ref().err().is_none_or(|failure| !failure.is_outage());
        self.0.metrics.upstream_up.with_label_values(&[self.0.name.as_str()]).set(i64::from(up));
        outcome.map_err(|failure| failure.during(attempt()))
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Counts the bytes of bodies that were sent.
    pub(super) fn sent_bytes(&self) -> prometheus::IntCounter {
        self.0.metrics.upstream_sent_bytes.with_label_values(&[self.0.name.as_str()])
    }
}

fn origin_of(url: &Uri, name: &Registry) -> Result<Origin, SetupError> {
    Origin::of(url).ok_or_else(|| {
        // The user's part may hold a password; so may the query.
        let url = url.to_string();
        let url = url.split('?').next().unwrap_or_default().to_owned();
        let url = url.split_once('@').map_or(url.clone(), |(_, rest)| format!("…@{rest}"));
        SetupError::Address { upstream: name.to_string(), url }
    })
}

/// Where the body begins in the blob, and how long the whole blob is.
fn extent(answer: &Answer, asked: Option<u64>) -> Result<(u64, Option<u64>), Failure> {
    if answer.status != StatusCode::PARTIAL_CONTENT {
        return Ok((0, answer.length()));
    }
    match (asked, part_of(answer)) {
        (Some(asked), Some((start, length))) if asked == start => Ok((start, length)),
        // All of it under the wrong status, which clients take: the digest decides.
        (None, None) if !answer.headers.contains_key(CONTENT_RANGE) => Ok((0, answer.length())),
        (asked, _) => {
            let sent = answer.header(CONTENT_RANGE).unwrap_or("no Content-Range").to_owned();
            let asked = asked.map_or_else(|| "the whole blob".to_owned(), |first| format!("the bytes from {first}"));
            Err(Failure::foreign(format!("{} was asked for {asked} and sent a part ({sent})", answer.origin)))
        }
    }
}

/// First byte and whole length of `Content-Range: bytes a-b/length`.
fn part_of(answer: &Answer) -> Option<(u64, Option<u64>)> {
    let (range, length) = answer.header(CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, length.trim().parse().ok()))
}
