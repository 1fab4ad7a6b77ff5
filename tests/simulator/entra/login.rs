//! `POST /TENANT/oauth2/v2.0/token`, client credentials.
//!
//! Errors as Entra has them: `{"error","error_description":"AADSTS…: text\r\nTrace ID: …","error_codes":[…],"timestamp",…}`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::super::clock;
use super::super::reply::{self, JSON, Reply};
use super::super::route::value;
use super::{Application, Directory, EntraSettings, RESOURCE, lock};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) fn answer(
    directory: &Directory,
    settings: &EntraSettings,
    path: &str,
    fields: &[(String, String)],
) -> Reply {
    let field = |name| value(fields, name).unwrap_or_default();
    let Some(tenant) = path.strip_prefix('/').and_then(|path| path.strip_suffix("/oauth2/v2.0/token")) else {
        return reply::empty(404);
    };
    if tenant != settings.tenant {
        let text = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
        return error(400, "invalid_request", 90_002, &text);
    }
    if field("grant_type") != "client_credentials" {
        return error(400, "unsupported_grant_type", 70_003, "The app requested an unsupported grant type.");
    }
    if field("scope") != format!("{RESOURCE}/.default") {
        let text = format!("The resource principal named {} was not found in the tenant.", field("scope"));
        return error(400, "invalid_resource", 500_011, &text);
    }
    let client = field("client_id");
    let Some(application) = settings.applications.iter().find(|application| application.client_id == client) else {
        let text = format!("Application with identifier '{client}' was not found in the directory '{tenant}'.");
        return error(400, "unauthorized_client", 700_016, &text);
    };
    let proven = match (value(fields, "client_secret"), value(fields, "client_assertion")) {
        (Some(secret), None) => by_secret(application, secret),
        (None, Some(jwt)) if field("client_assertion_type") == ASSERTION => {
            by_assertion(directory, application, jwt, path)
        }
        _ => Err(error(
            401,
            "invalid_client",
            7_000_218,
            "The request body must contain client_assertion or client_secret.",
        )),
    };
    if let Err(refused) = proven {
        return refused;
    }
    let (token, _) = directory.issue(client);
    let life = settings.life_s;
    let body = format!(
        "{{\"token_type\":\"Bearer\",\"expires_in\":{life},\"ext_expires_in\":{life},\"access_token\":\"{token}\"}}"
    );
    reply::text(200, JSON, body)
}

fn by_secret(application: &Application, secret: &str) -> Result<(), Reply> {
    if application.secrets.iter().any(|known| known == secret) {
        return Ok(());
    }
    let text = format!(
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client \
         secret ID, for a secret added to app '{}'.",
        application.client_id
    );
    Err(error(401, "invalid_client", 7_000_215, &text))
}

fn by_assertion(directory: &Directory, application: &Application, jwt: &str, path: &str) -> Result<(), Reply> {
    let part = |at| {
        let bytes = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at)?).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    let (Some(header), Some(claims)) = (part(0), part(1)) else {
        return Err(error(401, "invalid_client", 50_027, "JWT token is invalid or malformed."));
    };
    if claims["exp"].as_u64().is_none_or(|end| end <= directory.now()) {
        let text = "Client assertion is not within its valid time range. Current time, expiry time of assertion.";
        return Err(error(401, "invalid_client", 700_024, text));
    }
    if lock(&directory.0.federated).contains_key(jwt) {
        return federated(application, &claims);
    }
    signed(directory, application, jwt, &header, &claims, path)
}

/// A service account's token: issuer, subject and audience must be those of a federated credential.
fn federated(application: &Application, claims: &Value) -> Result<(), Reply> {
    let subject = claims["sub"].as_str().unwrap_or_default();
    if claims["aud"][0] != "api://AzureADTokenExchange" {
        let text = "No matching federated identity record found for presented assertion audience.";
        return Err(error(401, "invalid_client", 700_212, text));
    }
    if application.subjects.iter().any(|known| known == subject) {
        return Ok(());
    }
    let text = format!("No matching federated identity record found for presented assertion subject '{subject}'.");
    Err(error(401, "invalid_client", 700_213, &text))
}

/// A statement signed with a registered certificate's key: `x5t`, signature, `aud`, `iss`, `sub`, `nbf` and `exp` are all checked.
fn signed(
    directory: &Directory,
    application: &Application,
    jwt: &str,
    header: &Value,
    claims: &Value,
    path: &str,
) -> Result<(), Reply> {
    let thumbprint = header["x5t"].as_str().unwrap_or_default();
    let known = application
        .certificates
        .iter()
        .find(|known| URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &known.der)) == thumbprint);
    let not_registered = || {
        let text = "The certificate used to sign the client assertion is not registered on application.";
        error(401, "invalid_client", 700_027, text)
    };
    let Some(known) = known.filter(|_| header["alg"] == "RS256") else { return Err(not_registered()) };
    let (text, signature) = jwt.rsplit_once('.').unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &known.public_key);
    if key.verify(text.as_bytes(), &signature).is_err() {
        return Err(not_registered());
    }
    let now = directory.now();
    let (begin, end) = (claims["nbf"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or_default());
    let named = claims["iss"] == application.client_id.as_str() && claims["sub"] == application.client_id.as_str();
    let here = claims["aud"].as_str().is_some_and(|audience| audience.ends_with(path));
    let in_time = begin <= now + 300 && end <= now + 600 && claims["jti"].is_string();
    if named && here && in_time {
        return Ok(());
    }
    Err(error(401, "invalid_client", 50_027, "JWT token is invalid or malformed: issuer, subject, audience or times."))
}

pub(super) fn error(status: u16, error: &str, code: u64, text: &str) -> Reply {
    let time = clock::rfc3339(clock::now());
    let body = serde_json::json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {text}\r\nTrace ID: 0f\r\nCorrelation ID: 0e\r\nTimestamp: {time}"),
        "error_codes": [code],
        "timestamp": time,
        "trace_id": "0f",
        "correlation_id": "0e",
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    reply::text(status, JSON, body.to_string())
}
