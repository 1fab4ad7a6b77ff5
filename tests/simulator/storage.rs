//! The storage account or data endpoint behind the redirects: signed URLs only, no credentials, XML errors, no digests.

use http::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED, SERVER};
use http::{HeaderMap, Method};

use super::blob::{self, Wanted};
use super::faults::PathClass;
use super::reply::{self, Reply};
use super::signature::{self, Signed};
use super::{State, clock};

const INVALID_AUTHENTICATION: &str =
    "Authentication information is not given in the correct format. Check the value of Authorization header.";
const FAILED_AUTHENTICATION: &str = "Server failed to authenticate the request. Make sure the value of Authorization header is \
                                     formed correctly including the signature.";

pub(super) fn answer(state: &State, method: &Method, target: &str, headers: &HeaderMap, client: &str) -> Reply {
    if let Some((fault, left)) = state.knobs.take_fault(PathClass::Storage, method.as_str()) {
        state.effects.count(format!("storage {}", fault.name()));
        return reply::faulty(&fault, left, client);
    }
    let request_id = state.guid();
    let mut answer = judge(state, method, target, headers, &request_id);
    reply::set(&mut answer, SERVER.as_str(), "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0");
    reply::set(&mut answer, "x-ms-request-id", &request_id);
    reply::set(&mut answer, "x-ms-version", "2016-05-31");
    answer
}

fn judge(state: &State, method: &Method, target: &str, headers: &HeaderMap, request_id: &str) -> Reply {
    if headers.contains_key("authorization") {
        state.log.violation(format!("an Authorization header reached storage: {method} {}", path(target)));
        return xml(400, "InvalidAuthenticationInfo", INVALID_AUTHENTICATION, request_id);
    }
    let digest = match signature::verify(state, target) {
        Signed::Good { digest } => digest,
        Signed::Expired => {
            state.effects.count("expired signature");
            return xml(403, "AuthenticationFailed", FAILED_AUTHENTICATION, request_id);
        }
        Signed::Altered => {
            state.log.violation(format!("a signed URL was altered on its way to storage: {}", path(target)));
            return xml(403, "AuthenticationFailed", FAILED_AUTHENTICATION, request_id);
        }
        Signed::Unknown => {
            return xml(404, "ResourceNotFound", "The specified resource does not exist.", request_id);
        }
    };
    let Some(content) = state.replicas.stored_blob(&digest) else {
        return xml(404, "BlobNotFound", "The specified blob does not exist.", request_id);
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return xml(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.", request_id);
    }
    let wanted = blob::wanted(state, headers, content.len() as u64, false);
    if wanted == Wanted::Unsatisfiable {
        let message = "The range specified is invalid for the current size of the resource.";
        let mut refused = xml(416, "InvalidRange", message, request_id);
        reply::set(&mut refused, CONTENT_RANGE.as_str(), &format!("bytes */{}", content.len()));
        return refused;
    }
    let mut answer = if *method == Method::HEAD {
        let mut head = reply::bare(200);
        reply::set(&mut head, "content-length", &content.len().to_string());
        reply::set(&mut head, "content-type", "application/octet-stream");
        reply::set(&mut head, "accept-ranges", "bytes");
        head
    } else {
        blob::serve(state, &digest, &content, &wanted)
    };
    blob_headers(state, &mut answer, &digest);
    answer
}

/// What a blob that a push copied into its place carries.
fn blob_headers(state: &State, answer: &mut Reply, digest: &str) {
    let created = clock::http_date(state.started);
    let etag = digest.split(':').nth(1).and_then(|hex| hex.get(..15)).unwrap_or_default().to_uppercase();
    reply::set(answer, ETAG.as_str(), &format!("\"0x8{etag}\""));
    reply::set(answer, LAST_MODIFIED.as_str(), &created);
    for (name, value) in [
        ("x-ms-blob-type", "AppendBlob"),
        ("x-ms-copy-completion-time", created.as_str()),
        ("x-ms-copy-status", "success"),
        ("x-ms-lease-state", "available"),
        ("x-ms-lease-status", "unlocked"),
        ("x-ms-meta-acr_to_delete", "false"),
        ("x-ms-server-encrypted", "true"),
    ] {
        reply::set(answer, name, value);
    }
}

fn xml(status: u16, code: &str, message: &str, request_id: &str) -> Reply {
    let time = clock::rfc3339(clock::now());
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\n\
         RequestId:{request_id}\nTime:{time}</Message></Error>"
    );
    reply::text(status, "application/xml", body)
}

fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}
