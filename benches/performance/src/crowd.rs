//! Callers of the harness' own, for calls that are not measured: each one about another subject.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    error::{Error, failed},
    parts::replica::{Replica, get_token, import},
};

/// The subject with this number.
pub fn subject(number: usize) -> String {
    format!("tenant-{number:07}")
}

/// Connections to some replicas, in turn: any run of them is spread evenly.
#[derive(Clone)]
pub struct Crowd(Arc<Vec<Channel>>);

impl Crowd {
    /// Makes so many connections to each replica.
    pub async fn connect(replicas: &[&Replica], each: usize) -> Result<Self, Error> {
        let mut channels = Vec::new();
        for _ in 0..each {
            for replica in replicas {
                channels.push(replica.connect().await?);
            }
        }
        Ok(Self(Arc::new(channels)))
    }

    /// The connection of the caller with this number.
    pub fn channel(&self, caller: usize) -> Result<Channel, Error> {
        let channel = self.0.get(caller % self.0.len().max(1)).cloned();
        channel.ok_or_else(|| failed("there are no connections"))
    }

    /// Imports the grants of these subjects, with so many under way at a time.
    pub async fn import(&self, numbers: Range<usize>, under_way: usize) -> Result<(), Error> {
        let work = |channel, number| async move { import(channel, &subject(number)).await };
        self.for_each(numbers, under_way, work).await
    }

    /// Gets the tokens of these subjects, with so many under way at a time.
    pub async fn get_tokens(&self, numbers: Range<usize>, under_way: usize) -> Result<(), Error> {
        let work = |channel, number| async move { get_token(channel, &subject(number)).await.map(|_| ()) };
        self.for_each(numbers, under_way, work).await
    }

    async fn for_each<F>(
        &self,
        numbers: Range<usize>,
        under_way: usize,
        work: impl Fn(Channel, usize) -> F + Clone + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let mut tasks = JoinSet::new();
        for _ in 0..under_way {
            let (crowd, next, work, end) = (self.clone(), Arc::clone(&next), work.clone(), numbers.end);
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok(());
                    }
                    work(crowd.channel(number)?, number).await?;
                }
            });
        }
        tasks.join_all().await.into_iter().collect()
    }
}
