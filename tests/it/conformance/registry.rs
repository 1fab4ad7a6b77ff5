//! The requests, and what every answer to them must have.

use crate::conformance::content::Manifest;
use crate::conformance::report::{Outcome, ensure};
use crate::harness::{Answer, Call, Client};
use base64::Engine as _;
use bytes::Bytes;

pub const REPOSITORY: &str = "conformance/one";
pub const OTHER_REPOSITORY: &str = "conformance/two";

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCTETS: &str = "application/octet-stream";

/// A registry under test.
pub struct Registry {
    client: Client,
    login: Option<String>,
}

impl Registry {
    pub fn new(client: Client, login: Option<(&str, &str)>) -> Self {
        let encode = |(user, password): (&str, &str)| {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {text}")
        };
        Self { client, login: login.map(encode) }
    }

    pub fn call(&self, method: &str, target: &str) -> Call {
        let call = self.client.call(method, target);
        match &self.login {
            Some(login) => call.line("Authorization", login),
            None => call,
        }
    }

    async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }

    pub async fn ping(&self) -> Outcome {
        status(&self.get("/v2/").await, &[200])
    }

    pub async fn has_no_tags(&self) -> Outcome {
        let answer = self.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
        status(&answer, &[200, 404])?;
        ensure(answer.status == 404 || tags(&answer)?.is_empty(), || answer.text().to_owned())
    }

    pub async fn has_no_referrers(&self) -> Outcome {
        let answer = self.get(&format!("/v2/{REPOSITORY}/referrers/{}", crate::harness::sha256(b"nothing"))).await;
        status(&answer, &[200])?;
        header(&answer, "content-type", OCI_INDEX)?;
        ensure(answer.json()["manifests"].as_array().is_some_and(Vec::is_empty), || answer.text().to_owned())
    }

    // Blobs.

    pub async fn blob_head(&self, digest: &str, content: &Bytes) -> Outcome {
        let answer = self.call("HEAD", &blob(REPOSITORY, digest)).send().await;
        status(&answer, &[200])?;
        header(&answer, "content-length", &content.len().to_string())?;
        same_digest(&answer, digest)
    }

    pub async fn blob_get(&self, digest: &str, content: &Bytes) -> Outcome {
        let answer = self.get(&blob(REPOSITORY, digest)).await;
        status(&answer, &[200])?;
        header(&answer, "content-length", &content.len().to_string())?;
        same_digest(&answer, digest)?;
        ensure(answer.body == *content, || "other bytes".to_owned())
    }

    pub async fn blob_is_missing(&self, digest: &str) -> Outcome {
        status(&self.get(&blob(REPOSITORY, digest)).await, &[404])
    }

    /// Deleted, and gone at once.
    pub async fn blob_delete(&self, repository: &str, digest: &str) -> Outcome {
        let target = blob(repository, digest);
        status(&self.call("DELETE", &target).send().await, &[202, 404])?;
        status(&self.call("HEAD", &target).send().await, &[404])
    }

    pub async fn blob_range(
        &self,
        digest: &str,
        content: &Bytes,
        range: &str,
        part: Option<(usize, usize)>,
    ) -> Outcome {
        let answer = self.call("GET", &blob(REPOSITORY, digest)).range(range).send().await;
        let Some((first, last)) = part else { return status(&answer, &[416]) };
        status(&answer, &[206])?;
        header(&answer, "content-length", &(last - first + 1).to_string())?;
        header(&answer, "content-range", &format!("bytes {first}-{last}/{}", content.len()))?;
        ensure(answer.body == content[first..=last], || "other bytes".to_owned())
    }

    /// Begins an upload: its `Location`.
    pub async fn begin(&self, repository: &str) -> Result<String, String> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.call("POST", &target).line("Content-Length", "0").send().await;
        status(&answer, &[202])?;
        location(&answer)
    }

    /// One `PUT` with everything. `wrong`: the digest is not that of the content.
    pub async fn blob_post_put(&self, repository: &str, digest: &str, content: &Bytes, wrong: bool) -> Outcome {
        let target = ending(&self.begin(repository).await?, digest);
        let answer = self.call("PUT", &target).line("Content-Type", OCTETS).body(content.clone()).send().await;
        self.blob_ends(&answer, digest, content, wrong).await
    }

    /// One `POST` with everything; a registry may ask for a `PUT` after all.
    pub async fn blob_post_only(&self, digest: &str, content: &Bytes, wrong: bool) -> Outcome {
        let target = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let answer = self.call("POST", &target).line("Content-Type", OCTETS).body(content.clone()).send().await;
        if answer.status == 202 {
            let target = ending(&location(&answer)?, digest);
            let answer = self.call("PUT", &target).line("Content-Type", OCTETS).body(content.clone()).send().await;
            return self.blob_ends(&answer, digest, content, wrong).await;
        }
        self.blob_ends(&answer, digest, content, wrong).await
    }

    /// One `PATCH` without a length, then an empty `PUT`.
    pub async fn blob_stream(&self, digest: &str, content: &Bytes, wrong: bool) -> Outcome {
        let (feed, pieces) = tokio::sync::mpsc::channel(4);
        for piece in content.chunks(content.len().div_ceil(3)) {
            feed.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
        }
        drop(feed);
        let target = self.begin(REPOSITORY).await?;
        let answer = self.call("PATCH", &target).line("Content-Type", OCTETS).pieces(pieces).send().await;
        status(&answer, &[202])?;
        let target = ending(&location(&answer)?, digest);
        let answer = self.call("PUT", &target).line("Content-Length", "0").send().await;
        self.blob_ends(&answer, digest, content, wrong).await
    }

    /// The answer to the last request of an upload.
    pub async fn blob_ends(&self, answer: &Answer, digest: &str, content: &Bytes, wrong: bool) -> Outcome {
        if wrong {
            return status(answer, &[400]);
        }
        status(answer, &[201])?;
        same_digest(answer, digest)?;
        let got = self.get(&location(answer)?).await;
        status(&got, &[200])?;
        ensure(got.body == *content, || "the Location has other bytes".to_owned())
    }

    /// `None`: any repository that has it. `Ok(true)`: it was mounted; `Ok(false)`: it had to be uploaded.
    pub async fn blob_mount(&self, from: Option<&str>, digest: &str, content: &Bytes) -> Result<bool, String> {
        let from = from.map_or_else(String::new, |from| format!("&from={from}"));
        let target = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}{from}");
        let answer = self.call("POST", &target).line("Content-Length", "0").send().await;
        status(&answer, &[201, 202])?;
        if answer.status == 201 {
            self.blob_ends(&answer, digest, content, false).await?;
            return Ok(true);
        }
        let target = ending(&location(&answer)?, digest);
        let answer = self.call("PUT", &target).line("Content-Type", OCTETS).body(content.clone()).send().await;
        self.blob_ends(&answer, digest, content, false).await?;
        Ok(false)
    }

    // Manifests.

    pub async fn manifest_put(&self, reference: &str, manifest: &Manifest, wrong: bool) -> Outcome {
        let call = self.call("PUT", &path(reference)).line("Content-Type", manifest.media_type);
        let answer = call.body(manifest.bytes.clone()).send().await;
        if wrong {
            return status(&answer, &[400]);
        }
        status(&answer, &[201])?;
        if let Some(subject) = &manifest.subject {
            header(&answer, "oci-subject", subject)?;
        }
        same_digest(&answer, &manifest.digest)?;
        self.manifest_at(&location(&answer)?, manifest).await
    }

    pub async fn manifest_get(&self, reference: &str, manifest: &Manifest) -> Outcome {
        self.manifest_at(&path(reference), manifest).await
    }

    async fn manifest_at(&self, target: &str, manifest: &Manifest) -> Outcome {
        let call = self.call("GET", target).line("Accept", OCI_INDEX).line("Accept", OCI_IMAGE);
        let answer = call.send().await;
        self.manifest_answer(&answer, manifest)?;
        ensure(answer.body == manifest.bytes, || "other bytes".to_owned())
    }

    pub async fn manifest_head(&self, reference: &str, manifest: &Manifest) -> Outcome {
        let call = self.call("HEAD", &path(reference)).line("Accept", OCI_INDEX).line("Accept", OCI_IMAGE);
        self.manifest_answer(&call.send().await, manifest)
    }

    #[expect(clippy::unused_self, reason = "beside its neighbours")]
    fn manifest_answer(&self, answer: &Answer, manifest: &Manifest) -> Outcome {
        status(answer, &[200])?;
        header(answer, "content-type", manifest.media_type)?;
        header(answer, "content-length", &manifest.bytes.len().to_string())?;
        same_digest(answer, &manifest.digest)
    }

    pub async fn manifest_get_fails(&self, reference: &str, with: &[u16]) -> Outcome {
        status(&self.get(&path(reference)).await, with)
    }

    /// Deleted by tag or digest, and gone at once.
    pub async fn manifest_delete(&self, reference: &str) -> Outcome {
        status(&self.call("DELETE", &path(reference)).send().await, &[202, 404])?;
        let call = self.call("HEAD", &path(reference)).line("Accept", OCI_INDEX).line("Accept", OCI_IMAGE);
        status(&call.send().await, &[404])
    }

    // Lists.

    /// The tags are in the list, and `last` cuts it.
    pub async fn lists_tags<'a>(&self, wanted: impl Iterator<Item = &'a String>) -> Outcome {
        let all = tags(&self.get(&format!("/v2/{REPOSITORY}/tags/list")).await)?;
        for tag in wanted {
            ensure(all.contains(tag), || format!("{tag} is not in {all:?}"))?;
        }
        if all.len() >= 2 {
            let mut sorted = all.clone();
            sorted.sort();
            let (before, after) = sorted.split_at(sorted.len() / 2);
            let last = before.last().unwrap();
            let rest = tags(&self.get(&format!("/v2/{REPOSITORY}/tags/list?last={last}")).await)?;
            ensure(before.iter().all(|tag| !rest.contains(tag)), || format!("after {last}: {rest:?}"))?;
            ensure(after.iter().all(|tag| rest.contains(tag)), || format!("after {last}: {rest:?}"))?;
        }
        Ok(())
    }

    /// Each referrer is in the list, as what it is; with a filter, those of that kind alone.
    pub async fn lists_referrers(&self, subject: &str, wanted: &[serde_json::Value]) -> Outcome {
        let target = format!("/v2/{REPOSITORY}/referrers/{subject}");
        includes(&self.get(&target).await, wanted.iter())?;
        for kind in wanted.iter().filter_map(|referrer| referrer["artifactType"].as_str()) {
            let answer = self.get(&format!("{target}?artifactType={}", kind.replace('+', "%2B"))).await;
            header(&answer, "oci-filters-applied", "artifactType")?;
            includes(&answer, wanted.iter().filter(|referrer| referrer["artifactType"] == kind))?;
            let other = |found: &&serde_json::Value| found["artifactType"] != kind;
            let list = answer.json();
            let others = list["manifests"].as_array().into_iter().flatten().filter(other).count();
            ensure(others == 0, || format!("not only {kind}: {list}"))?;
        }
        Ok(())
    }
}

fn includes<'a>(answer: &Answer, wanted: impl Iterator<Item = &'a serde_json::Value>) -> Outcome {
    status(answer, &[200])?;
    header(answer, "content-type", OCI_INDEX)?;
    let list = answer.json();
    let found = list["manifests"].as_array().ok_or("no list of manifests")?;
    for referrer in wanted {
        ensure(found.contains(referrer), || format!("{referrer} is not in {list}"))?;
    }
    Ok(())
}

fn tags(answer: &Answer) -> Result<Vec<String>, String> {
    status(answer, &[200])?;
    let list = answer.json();
    let tags = list["tags"].as_array().ok_or_else(|| format!("no tags in {list}"))?;
    Ok(tags.iter().filter_map(|tag| Some(tag.as_str()?.to_owned())).collect())
}

fn path(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// The path of a `Location`, which may be absolute.
pub fn location(answer: &Answer) -> Result<String, String> {
    let location = answer.header("location").ok_or("no Location")?;
    let path = location.split_once("://").map_or(Some(location), |(_, rest)| Some(&rest[rest.find('/')?..]));
    path.map(str::to_owned).ok_or_else(|| format!("Location {location}"))
}

/// The address of the last request of an upload.
pub fn ending(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

pub fn status(answer: &Answer, wanted: &[u16]) -> Outcome {
    let status = answer.status.as_u16();
    ensure(wanted.contains(&status), || {
        format!("{status} instead of {wanted:?}: {}", String::from_utf8_lossy(&answer.body))
    })
}

pub fn header(answer: &Answer, name: &str, value: &str) -> Outcome {
    let got = answer.header(name);
    ensure(got == Some(value), || format!("{name}: {got:?} instead of {value}"))
}

/// `Docker-Content-Digest`, in the algorithm that was asked for.
fn same_digest(answer: &Answer, digest: &str) -> Outcome {
    header(answer, "docker-content-digest", digest)
}
