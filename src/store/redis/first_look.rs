//! A look at how the servers are set up, when the store is opened and after each reconnect: it may be another server then.

use std::collections::HashSet;

use tracing::warn;

use super::{
    checkup::{self, Finding},
    contact::in_time,
    durable::Durability,
    link::RESPONSE_TIMEOUT,
    primaries::{Care, Node, Primaries, is_absence},
    refusal::opening,
};
use crate::store::StoreError;

/// Refuses a set-up that would lose grants; what is merely a risk is logged, unless it was told before. Gives all that has
/// been told.
pub(super) async fn examine(
    primaries: &Primaries,
    durability: Option<Durability>,
    told: &HashSet<String>,
) -> Result<HashSet<String>, StoreError> {
    let mut risks = HashSet::new();
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
                Finding::Warning(why) => risks.insert(format!("about the Redis at {}: {why}", node.endpoint)),
            };
        }
    }
    risks.difference(told).for_each(|risk| warn!("{risk}"));
    Ok(risks)
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
