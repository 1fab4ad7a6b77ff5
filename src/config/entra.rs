//! The kinds of credential that are identities of Entra: service principal, managed identity, workload identity.

use super::origin::Origin;
use super::reader::Section;
use super::secret::secret_path;
use super::sections::base_of;
use super::settings::{AssignedIdentity, CredentialSettings, PrincipalProof};
use super::signing::SigningCertificate;
use super::upstreams::{Places, is_loopback, read_secret_file};
use http::Uri;
use std::path::PathBuf;

const BY_CLOUD: &str = "by the registry's cloud";

pub(super) fn read_service_principal(section: &mut Section<'_>, places: Places<'_>) -> Option<CredentialSettings> {
    let tenant_id = read_id(section, "tenant_id", None);
    let client_id = read_id(section, "client_id", None);
    let proof = read_proof(section, places);
    let authority = read_base(section, "authority", BY_CLOUD, "https://login.microsoftonline.com");
    let (tenant_id, client_id, proof) = (tenant_id?, client_id?, proof?);
    Some(CredentialSettings::ServicePrincipal { tenant_id, client_id, proof, authority })
}

pub(super) fn read_managed_identity(section: &mut Section<'_>) -> Option<CredentialSettings> {
    const ABSENT: &str = "not asked for";
    let mut read = |key| section.optional::<String>(key, ABSENT);
    let ids = [
        ("client_id", read("client_id"), AssignedIdentity::ClientId as fn(String) -> AssignedIdentity),
        ("object_id", read("object_id"), AssignedIdentity::ObjectId),
        ("resource_id", read("resource_id"), AssignedIdentity::ResourceId),
    ];
    let endpoint = read_base(section, "endpoint", "by the surroundings", "http://127.0.0.1:40342");
    let mut given = ids.into_iter().filter_map(|(key, id, make)| Some((key, id?, make)));
    let Some((key, id, make)) = given.next() else {
        return Some(CredentialSettings::ManagedIdentity { identity: AssignedIdentity::System, endpoint });
    };
    if let Some((other, ..)) = given.next() {
        section.error(
            other,
            format!("{key} and {other} both name an identity: keep one of client_id, object_id and resource_id"),
        );
        return None;
    }
    if key == "resource_id" && !(id.starts_with('/') && is_plain(&id)) {
        let advice = "write /subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME";
        section.error(key, format!("'{id}' is no resource id: {advice}"));
        return None;
    }
    let id = if key == "resource_id" { id } else { checked_id(section, key, id)? };
    Some(CredentialSettings::ManagedIdentity { identity: make(id), endpoint })
}

pub(super) fn read_workload_identity(section: &mut Section<'_>, places: Places<'_>) -> Option<CredentialSettings> {
    let variable = |name: &'static str| (name, places.environment.get(name).map(str::to_owned));
    let tenant_id = read_id(section, "tenant_id", Some(variable("AZURE_TENANT_ID")));
    let client_id = read_id(section, "client_id", Some(variable("AZURE_CLIENT_ID")));
    let token_file = read_token_file(section, places);
    if let (false, Some(host)) = (section.has("authority"), places.environment.get("AZURE_AUTHORITY_HOST")) {
        section.preset("authority", host, &Origin::Environment("AZURE_AUTHORITY_HOST".to_owned()));
    }
    let authority = read_base(section, "authority", BY_CLOUD, "https://login.microsoftonline.com");
    let (tenant_id, client_id, token_file) = (tenant_id?, client_id?, token_file?);
    Some(CredentialSettings::WorkloadIdentity { tenant_id, client_id, token_file, authority })
}

/// The file with the workload's token: as written, else as AKS says.
fn read_token_file(section: &mut Section<'_>, places: Places<'_>) -> Option<PathBuf> {
    const VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    if !section.has("token_file") {
        let Some(file) = places.environment.get(VARIABLE) else {
            let message = format!(
                "a workload identity needs token_file, since {VARIABLE} is not set: write the path of the service account's \
                 token, or label the pod azure.workload.identity/use: \"true\""
            );
            section.optional::<PathBuf>("token_file", "missing");
            section.error("token_file", message);
            return None;
        };
        section.preset("token_file", file, &Origin::Environment(VARIABLE.to_owned()));
    }
    read_secret_file(section, "token_file", places)
}

/// `client_secret_file` or `certificate_file`.
fn read_proof(section: &mut Section<'_>, places: Places<'_>) -> Option<PrincipalProof> {
    let certificate = section.optional::<PathBuf>("certificate_file", "client_secret_file is used");
    let Some(certificate) = certificate else {
        let is_wrong = section.origin_of("certificate_file") != Origin::Default;
        if is_wrong || section.has("client_secret_file") {
            return read_secret_file(section, "client_secret_file", places).map(PrincipalProof::Secret);
        }
        section.optional::<PathBuf>("client_secret_file", "missing");
        let message = "a service principal needs client_secret_file or certificate_file: write the path of the file with its secret, or \
                       of the PEM file with its key and certificate";
        section.error("client_secret_file", message);
        return None;
    };
    let certificate =
        secret_path(&certificate, places.environment, &base_of(&section.origin_of("certificate_file"), places.here));
    section.show_as("certificate_file", &certificate);
    if section.optional::<PathBuf>("client_secret_file", "certificate_file is used").is_some() {
        let message = "client_secret_file and certificate_file are both given: keep the one that the application has";
        section.error("client_secret_file", message);
    }
    if let Err(problem) = SigningCertificate::read(&certificate) {
        section.error("certificate_file", problem);
    }
    Some(PrincipalProof::Certificate(certificate))
}

/// An id that must be there; `variable` and its value stand in for it.
fn read_id(
    section: &mut Section<'_>,
    key: &'static str,
    variable: Option<(&'static str, Option<String>)>,
) -> Option<String> {
    let (name, value) = variable.map_or((None, None), |(name, value)| (Some(name), value));
    if let (false, Some(name), Some(value)) = (section.has(key), name, value) {
        section.preset(key, &value, &Origin::Environment(name.to_owned()));
    }
    let had = section.has(key);
    let Some(id) = section.optional::<String>(key, "missing") else {
        if !had {
            let otherwise = name.map(|name| format!(", or set {name}")).unwrap_or_default();
            let what = if key == "tenant_id" { "the tenant's id or domain" } else { "the application's (client) id" };
            section.error(key, format!("this kind of credential needs {key}: write {what}{otherwise}"));
        }
        return None;
    };
    checked_id(section, key, id)
}

/// Ids become part of paths and forms: what no id has in it is a mistake that Entra's own words would hide.
fn checked_id(section: &mut Section<'_>, key: &'static str, id: String) -> Option<String> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Some(id);
    }
    section.error(
        key,
        format!("'{id}' is no id: write it as Azure shows it, such as 11111111-2222-3333-4444-555555555555"),
    );
    None
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

/// Where a service is, to whose base the paths of its protocol are added.
fn read_base(section: &mut Section<'_>, key: &'static str, absent: &'static str, example: &str) -> Option<Uri> {
    let text = section.optional::<String>(key, absent)?;
    match parse_base(&text, example) {
        Ok(base) => Some(base),
        Err(problem) => {
            section.error(key, problem);
            None
        }
    }
}

/// The base of a login host.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn parse_authority(text: &str) -> Result<Uri, String> {
    parse_base(text, "https://login.microsoftonline.com")
}

fn parse_base(text: &str, example: &str) -> Result<Uri, String> {
    let advice = format!("write scheme and host, such as {example}");
    let uri: Uri = text.parse().map_err(|_| format!("'{text}' is not a url: {advice}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let Some(host) = uri.host().filter(|_| matches!(scheme, "http" | "https") && !text.contains('@')) else {
        return Err(format!("this is not an address that can be asked: {advice}"));
    };
    if scheme == "http" && !is_loopback(host) {
        return Err(format!(
            "'{text}' is plain http, which would show tokens and secrets to the network: write https, http is for loopback \
             addresses only"
        ));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!("'{text}' has a path: larder adds the paths of the protocol itself; {advice}"));
    }
    Ok(uri)
}
