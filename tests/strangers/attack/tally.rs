//! Runs many models and counts the outcomes.

use std::collections::BTreeMap;
use std::fmt;

use crate::attack::compare::{Fault, ModelOutcome, Scope, compare};
use crate::attack::draw::draw;
use crate::attack::model::DrawnModel;
use crate::attack::quietly;
use crate::attack::shrink::shrunk;

/// A model that fails, with the smallest model found that fails in the same way.
#[derive(Debug)]
pub(crate) struct FailedModel {
    pub(crate) seed: u64,
    pub(crate) fault: Fault,
    pub(crate) engine: &'static str,
    pub(crate) smallest: DrawnModel,
    pub(crate) detail: String,
}

impl fmt::Display for FailedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail: String = self.detail.chars().take(600).collect();
        write!(f, "seed {}: {:?} on {}: {detail}\n{}", self.seed, self.fault, self.engine, self.smallest)
    }
}

/// Counts of the outcomes of many models.
#[derive(Debug, Default)]
pub(crate) struct AttackTally {
    pub(crate) models: usize,
    pub(crate) agree: usize,
    /// Models that are not fit for the comparison, by reason; not part of `models`.
    pub(crate) unfit: BTreeMap<String, OutcomeCount>,
    pub(crate) refused: BTreeMap<String, OutcomeCount>,
    /// Models that agree, by how our own kernels describe what they run.
    ran: BTreeMap<String, OutcomeCount>,
    /// Steps of all compared models, by operation.
    operations: BTreeMap<String, usize>,
    /// Graph nodes of the models that agree, by the engine's names of the operations.
    pub(crate) nodes: BTreeMap<&'static str, usize>,
    pub(crate) wrong: BTreeMap<(Fault, &'static str), usize>,
    pub(crate) failures: Vec<FailedModel>,
}

/// Models with the same outcome: how many, and the seed of one of them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OutcomeCount {
    count: usize,
    example: u64,
}

/// Adds a group to the group of the same reason.
fn count(
    groups: &mut BTreeMap<String, OutcomeCount>,
    why: String,
    OutcomeCount { count, example }: OutcomeCount,
) {
    let group = groups.entry(why).or_default();
    *group = OutcomeCount { count: group.count + count, example };
}

/// How many failing models are shrunk per fault and engine; further ones are only counted, because
/// shrinking repeats the comparison many times.
const SHRUNK: usize = 6;

impl AttackTally {
    /// Draws, compares and counts the model of a seed. One seed in `dense` is also compared by
    /// differences in every parameter.
    pub(crate) fn add(&mut self, seed: u64, dense: u64) {
        let one = OutcomeCount { count: 1, example: seed };
        let Some(model) = draw(seed) else {
            return count(&mut self.unfit, "not drawn to its end".into(), one);
        };
        let scope = Scope { dense: seed.is_multiple_of(dense) };
        let outcome = quietly(|| compare(&model, scope));
        let outcome = outcome.unwrap_or_else(|message| ModelOutcome::Wrong {
            fault: Fault::Panic,
            engine: "comparison",
            detail: message,
        });
        if let ModelOutcome::Unfit(why) = outcome {
            return count(&mut self.unfit, why.into(), one);
        }
        self.models += 1;
        for step in &model.steps {
            let name = format!("{:?}", step.op);
            let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
            *self.operations.entry(name).or_default() += 1;
        }
        match outcome {
            ModelOutcome::Agrees { ran, nodes } => {
                self.agree += 1;
                nodes.into_iter().for_each(|node| *self.nodes.entry(node).or_default() += 1);
                count(&mut self.ran, ran, one);
            }
            ModelOutcome::Refused(why) => count(&mut self.refused, why, one),
            ModelOutcome::Wrong { fault, engine, detail } => {
                self.fail(seed, &model, scope, (fault, engine), detail);
            }
            ModelOutcome::Unfit(_) => {}
        }
    }

    /// Counts a fault, and shrinks the first few of its kind.
    fn fail(
        &mut self,
        seed: u64,
        model: &DrawnModel,
        scope: Scope,
        (fault, engine): (Fault, &'static str),
        detail: String,
    ) {
        let count = self.wrong.entry((fault, engine)).or_default();
        *count += 1;
        if *count > SHRUNK {
            return;
        }
        let smallest = shrunk(model, scope, fault, engine);
        let detail = match quietly(|| compare(&smallest, scope)) {
            Ok(ModelOutcome::Wrong { detail, .. }) => detail,
            _ => detail,
        };
        self.failures.push(FailedModel { seed, fault, engine, smallest, detail });
    }

    /// Adds the counts of `other`.
    pub(crate) fn merge(&mut self, other: Self) {
        self.models += other.models;
        self.agree += other.agree;
        let sums =
            [(&mut self.unfit, other.unfit), (&mut self.refused, other.refused), (&mut self.ran, other.ran)];
        for (into, from) in sums {
            from.into_iter().for_each(|(why, group)| count(into, why, group));
        }
        other
            .operations
            .into_iter()
            .for_each(|(key, count)| *self.operations.entry(key).or_default() += count);
        other.nodes.into_iter().for_each(|(key, count)| *self.nodes.entry(key).or_default() += count);
        other.wrong.into_iter().for_each(|(key, count)| *self.wrong.entry(key).or_default() += count);
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for AttackTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong: usize = self.wrong.values().sum();
        let refused: usize = self.refused.values().map(|group| group.count).sum();
        writeln!(f, "{} models: {} agree, {refused} refused, {wrong} wrong", self.models, self.agree)?;
        let lists = [("refused", &self.refused), ("ran as", &self.ran), ("not counted", &self.unfit)];
        for (what, list) in lists {
            for (why, OutcomeCount { count, example }) in list {
                writeln!(f, "  {what}, {count}: {why} (model {example})")?;
            }
        }
        for ((fault, engine), count) in &self.wrong {
            writeln!(f, "  wrong, {count}: {fault:?} on {engine}")?;
        }
        let operations: Vec<String> =
            self.operations.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "operations: {}", operations.join(", "))?;
        let nodes: Vec<String> = self.nodes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "nodes: {}", nodes.join(", "))
    }
}

/// Runs the models of a range of seeds on several threads. Each thread has a rayon pool of one
/// thread, so that the engine runs the samples of a call together.
pub(crate) fn run(seeds: std::ops::Range<u64>, dense: u64, threads: usize) -> AttackTally {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let (next, end) = (&next, seeds.end);
    let work = || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread can be made");
        pool.install(|| {
            let mut tally = AttackTally::default();
            loop {
                let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if seed >= end {
                    return tally;
                }
                tally.add(seed, dense);
            }
        })
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = AttackTally::default();
        all.into_iter().for_each(|one| sum.merge(one.join().expect("the comparison does not panic")));
        sum
    })
}
