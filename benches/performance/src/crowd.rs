//! Callers of the harness' own, for what h2load cannot tell: who was served last, by which replica, with which token.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Barrier, task::JoinSet};
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

    /// All callers ask at once: how long from the first question until the last one was served, and what all of them got. The
    /// callers look at the clock themselves: whoever let them go has its turn late where all cores have work.
    pub async fn at_once<F, T>(&self, callers: usize, ask: impl Fn(Channel) -> F) -> Result<(Duration, Vec<T>), Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let start = Arc::new(Barrier::new(callers));
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (asking, start) = (ask(self.channel(caller)?), Arc::clone(&start));
            tasks.spawn(async move {
                start.wait().await;
                let asked = Instant::now();
                let answer = asking.await?;
                Ok::<_, Error>((asked, Instant::now(), answer))
            });
        }
        let answers = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let first = answers.iter().map(|(asked, ..)| *asked).min();
        let last = answers.iter().map(|(_, served, _)| *served).max();
        let (first, last) = first.zip(last).ok_or_else(|| failed("nobody asked"))?;
        Ok((last.duration_since(first), answers.into_iter().map(|(.., answer)| answer).collect()))
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
