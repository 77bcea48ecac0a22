//! What is done once, when the store is opened: a look at how the servers are set up.

use tracing::warn;

use super::{
    checkup::{self, Finding},
    contact::in_time,
    durable::Durability,
    link::{Link, RESPONSE_TIMEOUT, opening},
    primaries::{Care, Node, is_absence},
};
use crate::store::StoreError;

/// Refuses a set-up that would lose grants; what is merely a risk is logged.
pub(super) async fn examine(link: &Link, durability: Option<Durability>) -> Result<(), StoreError> {
    let primaries = link.primaries().await.map_err(opening)?;
    for node in primaries.nodes() {
        let mut all = findings(node).await?;
        if let Some(durability) = durability {
            all.extend(able(node, durability).await?);
        }
        for finding in all {
            match finding {
                Finding::Refused(why) => {
                    return Err(StoreError::Open(format!("the Redis at {} cannot be used: {why}", node.endpoint)));
                }
                Finding::Warning(why) => warn!("about the Redis at {}: {why}", node.endpoint),
            }
        }
    }
    Ok(())
}

async fn findings(node: &Node) -> Result<Vec<Finding>, StoreError> {
    let answer = in_time(RESPONSE_TIMEOUT, node.send(&redis::cmd("INFO"), Care::Plain)).await;
    match answer.and_then(|info| Ok(redis::from_redis_value::<String>(info)?)) {
        Ok(info) => Ok(checkup::settings(&info)),
        // It may not be asked, or is a node that is away while the others are there.
        Err(error) if error.code().is_some() || is_absence(&error) => Ok(vec![checkup::unchecked(&error.to_string())]),
        Err(error) => Err(opening(error)),
    }
}

/// What keeps a server from making writes as durable as they are configured to be.
async fn able(node: &Node, durability: Durability) -> Result<Option<Finding>, StoreError> {
    match in_time(RESPONSE_TIMEOUT, node.send(&durability.probe(), Care::Plain)).await {
        Ok(_) => Ok(None),
        Err(error) if error.code().is_some() => Ok(Some(checkup::unable(&error.to_string()))),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(opening(error)),
    }
}
