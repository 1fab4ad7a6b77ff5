//! What an operator can do about what Entra says.

/// By Entra's number of the error; `proof` is the file or place that the login's proof comes from.
pub(super) fn remedy(code: u64, tenant: &str, client: &str, proof: &str) -> String {
    match code {
        7_000_215 | 7_000_222 => {
            format!(
                "the client secret is wrong or has expired: make a new one for application {client} and write it into {proof}"
            )
        }
        700_016 => format!(
            "tenant {tenant} has no application {client}: check client_id and tenant_id (the registry's tenant, where the \
             application is registered)"
        ),
        90_002 | 900_023 | 90_013 => format!("there is no tenant {tenant}: check tenant_id"),
        700_027 => format!(
            "the certificate of {proof} is not registered with application {client}, or has expired: add it under Certificates & \
             secrets"
        ),
        700_024 => format!(
            "the token of {proof} is not valid at this time: see that it is the projected file that kubelet renews, and check this \
             machine's clock"
        ),
        70_021 | 700_211 | 700_212 | 700_213 => format!(
            "application {client} has no federated credential for the token of {proof}: add one whose issuer, subject \
             (system:serviceaccount:NAMESPACE:NAME) and audience (api://AzureADTokenExchange) are the token's"
        ),
        53_003 | 530_003 => format!(
            "a Conditional Access policy of tenant {tenant} keeps {client} out from here: let it in, or ask from a place that it allows"
        ),
        500_011 | 650_052 => format!(
            "tenant {tenant} does not know Azure Container Registry: check tenant_id, or register the provider \
             Microsoft.ContainerRegistry in its subscription"
        ),
        7_000_112 | 7_000_229 => {
            format!("application {client} is disabled or has no service principal in tenant {tenant}: enable it")
        }
        _ => format!("check tenant_id {tenant}, client_id {client} and {proof}"),
    }
}

/// What to do when the registry does not take the identity's token.
pub(super) fn at_registry(tenant: Option<&str>) -> String {
    let tenant = tenant.map_or_else(|| "the identity's tenant".to_owned(), |tenant| format!("tenant {tenant}"));
    format!(
        "see that the registry belongs to a subscription of {tenant}, and give the identity AcrPull (or Container Registry Repository \
         Reader) there"
    )
}
