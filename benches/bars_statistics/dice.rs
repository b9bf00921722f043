//! Simulated visitors: everything random comes from here, and from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

/// Lets all dice fall otherwise; to be called before they are made.
pub fn seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}

/// Dice that always fall the same for the same seed.
pub struct Dice(fastrand::Rng);

impl Dice {
    pub fn new(bar: &str, cell: usize, run: usize) -> Dice {
        let name = bar.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Dice(fastrand::Rng::with_seed(
            (name ^ ((cell as u64) << 40) ^ run as u64).wrapping_add(
                SEED.load(Ordering::Relaxed)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
        ))
    }

    /// Uniform from 0 to 1, 1 excluded.
    pub fn share(&mut self) -> f64 {
        self.0.f64()
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    pub fn hits(&mut self, chance: f64) -> bool {
        self.0.f64() < chance
    }

    /// How many of `n` hit, by inversion.
    pub fn binomial(&mut self, n: u64, chance: f64) -> u64 {
        if chance > 0.5 {
            return n - self.binomial(n, 1.0 - chance);
        }
        if n > 500 {
            let half = n / 2;
            return self.binomial(half, chance) + self.binomial(n - half, chance);
        }
        let odds = chance / (1.0 - chance);
        let mut mass = (1.0 - chance).powi(n as i32);
        let mut left = self.0.f64();
        for hits in 0..n {
            if left < mass {
                return hits;
            }
            left -= mass;
            mass *= odds * (n - hits) as f64 / (hits + 1) as f64;
        }
        n
    }

    /// A standard normal value, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    /// A log-normal value around 1.
    pub fn log_normal(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal()).exp()
    }

    /// A purchase in cents: lognormal around 20.00 with σ = 1.2.
    pub fn cents(&mut self) -> i128 {
        (2000.0 * (1.2 * self.normal()).exp()).round().max(1.0) as i128
    }
}
