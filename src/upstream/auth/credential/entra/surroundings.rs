use crate::config::Environment;
use http::Uri;
use std::path::{Path, PathBuf};

/// What Azure writes into the DMI tables of its machines.
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";
/// Where Linux shows it.
const CHASSIS: &str = "/sys/class/dmi/id/chassis_asset_tag";

/// Who gives out managed identities here, as the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Surroundings {
    /// App Service, Functions, Container Apps.
    AppService { endpoint: Uri, header: String },
    /// A server of one's own that Azure Arc manages.
    Arc { endpoint: Uri, folder: PathBuf },
    /// Something larder does not speak to: why, and what to do.
    Unsupported(&'static str),
    /// Nothing said: the metadata service of a VM, if it is one.
    Machine,
}

impl Surroundings {
    pub(in crate::upstream) fn of(environment: &Environment) -> Self {
        let endpoint = environment.get("IDENTITY_ENDPOINT");
        let header = environment.get("IDENTITY_HEADER");
        match (endpoint, header) {
            (Some(_), Some(_)) if environment.get("IDENTITY_SERVER_THUMBPRINT").is_some() => Self::Unsupported(
                "this is Service Fabric, whose identities larder does not speak to; use a service principal",
            ),
            (Some(endpoint), Some(header)) => match endpoint.parse() {
                Ok(endpoint) => Self::AppService { endpoint, header: header.to_owned() },
                Err(_) => Self::Unsupported("IDENTITY_ENDPOINT is no address; correct it, or unset it"),
            },
            (Some(endpoint), None) if environment.get("IMDS_ENDPOINT").is_some() => match endpoint.parse() {
                Ok(endpoint) => Self::Arc { endpoint, folder: arc_folder(environment) },
                Err(_) => Self::Unsupported("IDENTITY_ENDPOINT is no address; correct it, or unset it"),
            },
            _ if environment.get("MSI_ENDPOINT").is_some() => Self::Unsupported(
                "MSI_ENDPOINT is the old interface of Cloud Shell and Azure Machine Learning, which larder does not speak; use \
                 `az login` or a service principal",
            ),
            _ => Self::Machine,
        }
    }

    /// Whether this machine says that it is one of Azure's, so that it has a metadata service.
    pub(in crate::upstream) fn is_azure_machine(chassis: &Path) -> bool {
        std::fs::read_to_string(chassis).is_ok_and(|tag| tag.trim() == AZURE_CHASSIS)
    }

    /// The file that says so.
    pub(in crate::upstream) fn chassis() -> &'static Path {
        Path::new(CHASSIS)
    }
}

/// Where Arc's agent puts its challenges, which only its own group may read.
fn arc_folder(environment: &Environment) -> PathBuf {
    if cfg!(windows) {
        let data = environment.path("ProgramData").unwrap_or_else(|| PathBuf::from(r"C:\ProgramData"));
        return data.join("AzureConnectedMachineAgent").join("Tokens");
    }
    PathBuf::from("/var/opt/azcmagent/tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings::of(&variables.iter().copied().collect())
    }

    #[test]
    fn variables_say_who_gives_out_identities() {
        let endpoint = ("IDENTITY_ENDPOINT", "http://localhost:42356/msi/token");
        let header = ("IDENTITY_HEADER", "h");
        assert_eq!(of(&[]), Surroundings::Machine);
        assert!(matches!(of(&[endpoint, header]), Surroundings::AppService { header, .. } if header == "h"));
        let thumbprint = ("IDENTITY_SERVER_THUMBPRINT", "t");
        assert!(
            matches!(of(&[endpoint, header, thumbprint]), Surroundings::Unsupported(why) if why.contains("Fabric"))
        );
        assert!(matches!(of(&[endpoint, ("IMDS_ENDPOINT", "http://localhost:40342")]), Surroundings::Arc { .. }));
        assert_eq!(of(&[endpoint]), Surroundings::Machine);
        assert!(matches!(of(&[("MSI_ENDPOINT", "x")]), Surroundings::Unsupported(why) if why.contains("MSI_ENDPOINT")));
        assert!(matches!(of(&[("IDENTITY_ENDPOINT", "a b"), header]), Surroundings::Unsupported(_)));
    }

    #[test]
    fn a_machine_of_azures_is_known_by_its_chassis() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tag");
        assert!(!Surroundings::is_azure_machine(&file));
        std::fs::write(&file, "7783-7084-3265-9085-8269-3286-77\n").unwrap();
        assert!(Surroundings::is_azure_machine(&file));
        std::fs::write(&file, "No Asset Tag\n").unwrap();
        assert!(!Surroundings::is_azure_machine(&file));
    }
}
