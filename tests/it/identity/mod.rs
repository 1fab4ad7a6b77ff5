//! Identities of Entra towards ACR: every kind pulls, every failure says what to do, and nothing waits for an identity that need
//! not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod input;
mod keeping;
mod kinds;
#[cfg(target_os = "linux")]
mod namespace;

use crate::harness::simulator::entra::{Application, AssignedIdentity as Assigned, Entra};
use crate::harness::simulator::{Artifact, Options};
use crate::harness::{Acr, Larder, Setup};
use bytes::Bytes;
use larder::config::{
    AssignedIdentity, CredentialSettings, ManagedIdentity, PrincipalProof, ServicePrincipal, WorkloadIdentity,
};
use std::path::PathBuf;

const APP: &str = "11111111-2222-3333-4444-555555555555";
const SUBJECT: &str = "system:serviceaccount:larder:larder";
const RESOURCE_ID: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull";

/// A private registry that trusts a directory, with `samples/config:v1` to `v9`.
struct World {
    acr: Acr,
    entra: Entra,
    artifact: Artifact,
}

impl World {
    async fn start() -> Self {
        Self::with(Entra::start().await).await
    }

    async fn with(entra: Entra) -> Self {
        let acr = Acr::start(Options { entra: Some(entra.directory()), ..Options::default() }).await;
        let content = Bytes::from(vec![7; 70_000]);
        let mut artifact = None;
        for version in 1..=9 {
            let tag = format!("v{version}");
            artifact = Some(acr.push_artifact("samples/config", &tag, &[("a", "text/plain", content.clone())]));
        }
        entra.turn(|k| k.identities = vec![identity("mi-1", true)]);
        Self { acr, entra, artifact: artifact.unwrap() }
    }

    fn setup(&self, credential: CredentialSettings) -> Setup {
        Setup::of(&self.acr).credential(credential)
    }

    /// A service principal with a secret, known to the directory.
    fn by_secret(&self) -> (Setup, PathBuf) {
        self.entra.turn(|k| k.applications = vec![Application::with_secret(APP, "s3cret")]);
        let setup = Setup::of(&self.acr);
        let file = setup.file("secret", "s3cret\n");
        let credential = self.principal(PrincipalProof::Secret(file.clone()));
        (setup.credential(credential), file)
    }

    fn principal(&self, proof: PrincipalProof) -> CredentialSettings {
        let authority = Some(self.entra.url().parse().unwrap());
        let (client_secret_file, certificate_file) = match proof {
            PrincipalProof::Secret(file) => (Some(file), None),
            PrincipalProof::Certificate(file) => (None, Some(file)),
        };
        CredentialSettings::ServicePrincipal(ServicePrincipal {
            tenant_id: "contoso".into(),
            client_id: APP.into(),
            client_secret_file,
            certificate_file,
            authority,
        })
    }

    fn managed(&self, identity: AssignedIdentity) -> CredentialSettings {
        managed(identity, Some(self.entra.url().parse().unwrap()))
    }

    /// A workload whose token file the directory trusts.
    fn by_workload(&self) -> (Setup, PathBuf) {
        self.entra.turn(|k| k.applications = vec![Application::with_subject(APP, SUBJECT)]);
        let setup = Setup::of(&self.acr);
        let token_file = setup.file("token", &self.entra.federated_token(SUBJECT, 3600));
        let credential = CredentialSettings::WorkloadIdentity(WorkloadIdentity {
            tenant_id: "contoso".into(),
            client_id: APP.into(),
            token_file: token_file.clone(),
            authority: Some(self.entra.url().parse().unwrap()),
        });
        (setup.credential(credential), token_file)
    }
}

fn managed(identity: AssignedIdentity, endpoint: Option<http::Uri>) -> CredentialSettings {
    let of_endpoint = ManagedIdentity { endpoint, ..ManagedIdentity::default() };
    CredentialSettings::ManagedIdentity(match identity {
        AssignedIdentity::System => of_endpoint,
        AssignedIdentity::ClientId(id) => ManagedIdentity { client_id: Some(id), ..of_endpoint },
        AssignedIdentity::ObjectId(id) => ManagedIdentity { object_id: Some(id), ..of_endpoint },
        AssignedIdentity::ResourceId(id) => ManagedIdentity { resource_id: Some(id), ..of_endpoint },
    })
}

fn identity(client_id: &str, system: bool) -> Assigned {
    Assigned {
        client_id: client_id.into(),
        object_id: format!("object-of-{client_id}"),
        resource_id: if system { String::new() } else { RESOURCE_ID.into() },
        system,
    }
}

fn tag(version: u32) -> String {
    format!("/v2/samples/config/manifests/v{version}")
}

/// The whole of a cold pull.
async fn pulls(world: &World, larder: &Larder) {
    let manifest = larder.get(&tag(9)).await;
    assert_eq!(manifest.body, world.artifact.manifest, "{}: {}", manifest.status, manifest.text());
    let blob = larder.get(&format!("/v2/samples/config/blobs/{}", world.artifact.layers[0])).await;
    assert_eq!(blob.body.len(), 70_000);
}

/// The status and the text of a pull that fails, which is never a 401 and never shows a secret.
async fn refusal(larder: &Larder) -> (u16, String) {
    let answer = larder.get(&tag(1)).await;
    assert_ne!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), None);
    let (status, code, message) = answer.error();
    assert!(status != 403 || code == "DENIED", "{code}");
    for secret in ["s3cret", "eyJ", "app-service-header"] {
        assert!(!message.contains(secret), "{message}");
    }
    (status, message)
}
