//! `stage.sampling`.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;

use super::stage::{Build, Compile, Emit, Next, Reason, Stage, StageError, Work};

/// Keeps a part of the entries, chosen by chance.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SamplingStage {
    /// Value of the label `reason` with which dropped entries are counted.
    #[arg(default = "sampling_stage")]
    drop_counter_reason: String,
    /// The part to keep, from 0, for none, to 1, for all.
    rate: f64,
}

impl SamplingStage {
    fn check(&self) -> Result<(), CheckErrors> {
        if (0.0..=1.0).contains(&self.rate) {
            return Ok(());
        }
        let text = "sampling stage failed to parse rate,Sampling Rate must be between 0.0 and 1.0, received";
        Err(CheckErrors::of(&["rate"], format!("{text} {:.6}", self.rate)))
    }
}

impl Build for SamplingStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(Sampling {
            reason: cx.reason(&self.drop_counter_reason),
            rate: self.rate,
            state: AtomicU64::new(RandomState::new().hash_one(())),
        }))
    }
}

struct Sampling {
    reason: Reason,
    rate: f64,
    state: AtomicU64,
}

impl Stage for Sampling {
    fn run(&self, _: &mut Work, _: &mut Emit) -> Next {
        if self.chance() < self.rate { Next::Keep } else { Next::Drop(self.reason) }
    }
}

impl Sampling {
    /// A number from 0 to 1, which excludes 1: SplitMix64, which needs no lock.
    fn chance(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("sampling") >= 7);
    }

    #[test]
    fn chances_are_spread_evenly() {
        for (rate, expected) in
            [(0.0, 0..=0), (0.25, 24_000..=26_000), (0.5, 49_000..=51_000), (1.0, 100_000..=100_000)]
        {
            let sampling = Sampling { reason: Reason(0), rate, state: AtomicU64::new(7) };
            let kept = (0..100_000).filter(|_| sampling.chance() < rate).count();
            assert!(expected.contains(&kept), "{rate}: {kept}");
        }
    }
}
