//! `[upstream.credential]`: as whom larder asks an upstream. Which keys there are depends on `kind`.

use super::declare::{Declared, TableDoc, settings};
use super::reader::{Section, nearest};
use super::values::{AzureId, LoginHost, MetadataService, ReadableFile, ResourceId, SecretFile, SigningFile, UserName};
use http::Uri;
use std::path::PathBuf;

/// `[upstream.credential]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSettings {
    /// No credential.
    Anonymous,
    /// A user and a password: ACR's admin user, a service principal's id and secret, a scope-map token, any registry's login.
    Password(PasswordLogin),
    /// An ACR refresh token (`az acr login --expose-token`).
    RefreshToken(RefreshTokenFile),
    /// Docker's `config.json`, its credential helpers included.
    DockerConfig(DockerLogins),
    /// The caller's own: larder holds none.
    Caller,
    /// The login of the Azure CLI, exchanged at the registry.
    AzureCli,
    /// For an ACR the identity that the surroundings have (workload, App Service, Arc, VM) or the Azure CLI's login; else Docker's,
    /// else none.
    Auto,
    /// An application of Entra with a secret or a certificate.
    ServicePrincipal(ServicePrincipal),
    /// The identity that Azure gives to a machine or an app.
    ManagedIdentity(ManagedIdentity),
    /// An application of Entra that trusts the token of a Kubernetes service account.
    WorkloadIdentity(WorkloadIdentity),
}

/// What a service principal proves itself with; both are files that are read again at each need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalProof {
    /// A client secret.
    Secret(PathBuf),
    /// PEM of an RSA key and its certificate.
    Certificate(PathBuf),
}

/// Which of a machine's identities is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AssignedIdentity {
    /// The only one, or the system-assigned one.
    #[default]
    System,
    ClientId(String),
    /// By its object (principal) id.
    ObjectId(String),
    /// By its Azure resource id.
    ResourceId(String),
}

settings! { "upstream.credential";
/// As whom larder asks this upstream.
struct CredentialKind {
    /// `anonymous`: no login. `auto`: for an ACR the identity of the surroundings, else the Azure CLI's login; else Docker's, else none.
    /// `caller`: none of larder's own, but the caller's, which `ask_upstream` checks. `azure-cli`: the login of `az login`.
    /// `docker-config`: the login of `docker login` or `oras login`, helpers included. `password`: a user and a password, such as ACR's
    /// admin user, a service principal's id and secret, or a token with a scope map. `refresh-token`: an ACR refresh token
    /// (`az acr login --expose-token`). `service-principal`, `managed-identity`, `workload-identity`: identities of Entra
    /// ([identity.md](identity.md)).
    kind: String [= "anonymous".to_owned(), write "\"auto\""];
}}

settings! { "upstream.credential" for "password";
/// A user and a password.
#[derive(PartialEq, Eq)]
pub struct PasswordLogin {
    /// The user.
    username: String [UserName,
        required "kind \"password\" needs a username: write one", example "\"ci\""];
    /// File that holds the password.
    password_file: PathBuf [SecretFile,
        required "this kind of credential needs password_file: write the path of the file that holds the secret",
        example "\"/etc/larder/acr-password\""];
}}

settings! { "upstream.credential" for "refresh-token";
/// An ACR refresh token.
#[derive(PartialEq, Eq)]
pub struct RefreshTokenFile {
    /// File that holds the token.
    token_file: PathBuf [SecretFile,
        required "this kind of credential needs token_file: write the path of the file that holds the secret",
        example "\"/etc/larder/acr-token\""];
}}

settings! { "upstream.credential" for "docker-config";
/// Docker's logins.
#[derive(PartialEq, Eq)]
pub struct DockerLogins {
    /// Docker's file.
    config_file: Option<PathBuf> [ReadableFile, unset "`$DOCKER_CONFIG/config.json`, else the user's",
        example "\"/etc/larder/docker-config.json\""];
}}

settings! { "upstream.credential" for "service-principal";
/// An application of Entra.
#[derive(PartialEq, Eq)]
pub struct ServicePrincipal {
    /// The tenant's id or domain.
    tenant_id: String [AzureId,
        required "this kind of credential needs tenant_id: write the tenant's id or domain",
        example "\"contoso.onmicrosoft.com\""];
    /// The application's (client) id.
    client_id: String [AzureId,
        required "this kind of credential needs client_id: write the application's (client) id",
        example "\"11111111-2222-3333-4444-555555555555\""];
    /// File that holds the application's secret; this or `certificate_file`.
    client_secret_file: Option<PathBuf> [SecretFile, unset "`certificate_file` is used", example "\"/etc/larder/app-secret\""];
    /// PEM of the application's RSA key and certificate.
    certificate_file: Option<PathBuf> [SigningFile, unset "`client_secret_file` is used", example "\"/etc/larder/app.pem\""];
    /// Base of the login host.
    authority: Option<Uri> [LoginHost, unset "by the registry's cloud", example "\"https://login.microsoftonline.com\""];
}}

settings! { "upstream.credential" for "managed-identity";
/// The identity of a machine or an app: named by one of the three ids, or by none.
#[derive(PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Its client id.
    client_id: Option<String> [AzureId, unset "not asked for", example "\"11111111-2222-3333-4444-555555555555\""];
    /// Its object (principal) id.
    object_id: Option<String> [AzureId, unset "not asked for", example "\"11111111-2222-3333-4444-555555555555\""];
    /// Its Azure resource id.
    resource_id: Option<String> [ResourceId, unset "not asked for",
        example "\"/subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/larder\""];
    /// Base of the metadata service.
    endpoint: Option<Uri> [MetadataService, unset "by the surroundings", example "\"http://127.0.0.1:40342\""];
}}

settings! { "upstream.credential" for "workload-identity";
/// An application of Entra that trusts the token of a Kubernetes service account.
#[derive(PartialEq, Eq)]
pub struct WorkloadIdentity {
    /// The tenant's id or domain; left out, `$AZURE_TENANT_ID`.
    tenant_id: String [AzureId,
        required "this kind of credential needs tenant_id: write the tenant's id or domain, or set AZURE_TENANT_ID",
        example "\"contoso.onmicrosoft.com\""];
    /// The application's (client) id; left out, `$AZURE_CLIENT_ID`.
    client_id: String [AzureId,
        required "this kind of credential needs client_id: write the application's (client) id, or set AZURE_CLIENT_ID",
        example "\"11111111-2222-3333-4444-555555555555\""];
    /// File that holds the service account's token; left out, `$AZURE_FEDERATED_TOKEN_FILE`.
    token_file: PathBuf [SecretFile,
        required "a workload identity needs token_file, since AZURE_FEDERATED_TOKEN_FILE is not set: write the path of the service account's token, or label the pod azure.workload.identity/use: \"true\"",
        example "\"/var/run/secrets/azure/tokens/azure-identity-token\""];
    /// Base of the login host; `$AZURE_AUTHORITY_HOST` is read if the key is not there.
    authority: Option<Uri> [LoginHost, unset "by the registry's cloud", example "\"https://login.microsoftonline.com\""];
}}

pub(super) fn docs() -> [TableDoc; 7] {
    [
        CredentialKind::doc(),
        PasswordLogin::doc(),
        RefreshTokenFile::doc(),
        DockerLogins::doc(),
        ServicePrincipal::doc(),
        ManagedIdentity::doc(),
        WorkloadIdentity::doc(),
    ]
}

const KINDS: [&str; 10] = [
    "anonymous",
    "password",
    "refresh-token",
    "docker-config",
    "azure-cli",
    "caller",
    "service-principal",
    "managed-identity",
    "workload-identity",
    "auto",
];

pub(super) fn read_credential(upstream: &mut Section<'_>) -> CredentialSettings {
    let mut section = upstream.section("credential");
    let kind = CredentialKind::read(&mut section).kind;
    let credential = match kind.as_str() {
        "anonymous" => CredentialSettings::Anonymous,
        "azure-cli" => CredentialSettings::AzureCli,
        "caller" => CredentialSettings::Caller,
        "auto" => CredentialSettings::Auto,
        "docker-config" => CredentialSettings::DockerConfig(Declared::read(&mut section)),
        "refresh-token" => CredentialSettings::RefreshToken(Declared::read(&mut section)),
        "service-principal" => CredentialSettings::ServicePrincipal(read_principal(&mut section)),
        "managed-identity" => CredentialSettings::ManagedIdentity(read_managed(&mut section)),
        "workload-identity" => CredentialSettings::WorkloadIdentity(read_workload(&mut section)),
        "password" => CredentialSettings::Password(Declared::read(&mut section)),
        other => {
            let message = match nearest(other, &KINDS) {
                Some(near) => format!("kind '{other}' is unknown: did you mean \"{near}\"?"),
                None => format!("kind '{other}' is unknown: write one of {}", KINDS.join(", ")),
            };
            section.reader.error_at(&section.path, "kind", message);
            // The keys of an unknown kind are unknown too: an error for each would hide the cause.
            return CredentialSettings::Anonymous;
        }
    };
    section.finish();
    credential
}

fn read_principal(section: &mut Section<'_>) -> ServicePrincipal {
    let has_file = section.has("client_secret_file") || section.has("certificate_file");
    let keys = ServicePrincipal::read(section);
    let message = match (&keys.client_secret_file, &keys.certificate_file) {
        (Some(_), Some(_)) => {
            "client_secret_file and certificate_file are both given: keep the one that the application has"
        }
        (None, None) if !has_file => {
            "a service principal needs client_secret_file or certificate_file: write the path of the file with its secret, or of the \
             PEM file with its key and certificate"
        }
        _ => return keys,
    };
    section.reader.error_at(&section.path, "client_secret_file", message);
    keys
}

fn read_managed(section: &mut Section<'_>) -> ManagedIdentity {
    let keys = ManagedIdentity::read(section);
    let ids = [("client_id", &keys.client_id), ("object_id", &keys.object_id), ("resource_id", &keys.resource_id)];
    let given: Vec<&str> = ids.into_iter().filter(|(_, id)| id.is_some()).map(|(key, _)| key).collect();
    if let [one, other, ..] = given[..] {
        let message =
            format!("{one} and {other} both name an identity: keep one of client_id, object_id and resource_id");
        section.reader.error_at(&section.path, other, message);
    }
    keys
}

fn read_workload(section: &mut Section<'_>) -> WorkloadIdentity {
    for (key, variable) in [
        ("tenant_id", "AZURE_TENANT_ID"),
        ("client_id", "AZURE_CLIENT_ID"),
        ("token_file", "AZURE_FEDERATED_TOKEN_FILE"),
        ("authority", "AZURE_AUTHORITY_HOST"),
    ] {
        section.preset(key, variable);
    }
    WorkloadIdentity::read(section)
}

impl ServicePrincipal {
    /// What it proves itself with.
    #[must_use]
    pub fn proof(&self) -> PrincipalProof {
        match (&self.certificate_file, &self.client_secret_file) {
            (Some(certificate), _) => PrincipalProof::Certificate(certificate.clone()),
            (None, secret) => PrincipalProof::Secret(secret.clone().unwrap_or_default()),
        }
    }
}

impl ManagedIdentity {
    /// Which one is meant, if there are several.
    #[must_use]
    pub fn identity(&self) -> AssignedIdentity {
        let ids = [
            self.client_id.clone().map(AssignedIdentity::ClientId),
            self.object_id.clone().map(AssignedIdentity::ObjectId),
            self.resource_id.clone().map(AssignedIdentity::ResourceId),
        ];
        ids.into_iter().flatten().next().unwrap_or_default()
    }
}
