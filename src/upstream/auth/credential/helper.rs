use crate::config::Environment;
use crate::upstream::auth::secret::Secret;
use crate::upstream::transport::process;
use std::time::Duration;

/// A helper asks a keychain or a small web service; one that takes longer waits for a person.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(serde::Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks `docker-credential-NAME` for the login of `server`. `None` if it has none; the error is a sentence.
pub(super) async fn get(
    environment: &Environment,
    name: &str,
    server: &str,
) -> Result<Option<(String, Secret)>, String> {
    let program_name = format!("docker-credential-{name}");
    // The name comes from a file: a path in it would run something that is not on PATH.
    let program = (!name.contains(['/', '\\'])).then(|| environment.program(&program_name)).flatten();
    let Some(program) = program else {
        return Err(format!("Docker's credential helper {program_name} is not on PATH"));
    };
    let output = process::run(&program, &["get"], &format!("{server}\n"), LIMIT, environment).await?;
    if !output.success {
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("credentials not found") || output.complaint.contains("credentials not found") {
            return Ok(None);
        }
        // Helpers write their errors to stdout as well, but what stands there may be the login.
        return Err(format!("{program_name} gives no login for {server} ({})", output.failure()));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{program_name} answered something that is no login for {server}"))?;
    Ok((!answer.secret.is_empty()).then(|| (answer.username, Secret::new(answer.secret))))
}
