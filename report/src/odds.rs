//! Fisher's exact test for tables of two by two: how likely chance alone puts as many hits together.

/// Natural logarithms of factorials, from which the odds of a table are made.
pub(crate) struct Odds {
    ln_factorial: Vec<f64>,
}

impl Odds {
    /// Returns the odds of tables with up to `most` things in all.
    pub(crate) fn up_to(most: usize) -> Odds {
        let mut sum = 0.0;
        let mut ln_factorial = vec![0.0];
        for n in 1..=most {
            sum += (n as f64).ln();
            ln_factorial.push(sum);
        }
        Odds { ln_factorial }
    }

    /// Returns the natural logarithm of the binomial coefficient "`n` choose `k`".
    pub(crate) fn ln_choose(&self, n: usize, k: usize) -> f64 {
        let ln = |n: usize| self.ln_factorial.get(n).copied().unwrap_or(f64::NAN);
        match k <= n {
            true => ln(n) - ln(k) - ln(n - k),
            false => f64::NEG_INFINITY,
        }
    }

    /// Returns the p value of the test, one-sided: the probability that of `matching` things, drawn at random from `all`
    /// of which `bad` are hits, at least `hits` are.
    pub(crate) fn fisher(&self, all: usize, bad: usize, matching: usize, hits: usize) -> f64 {
        let whole = self.ln_choose(all, matching);
        let most = matching.min(bad);
        let tail = (hits..=most).filter(|hits| matching - hits <= all - bad);
        let sum: f64 = tail
            .map(|hits| {
                let bad_ways = self.ln_choose(bad, hits);
                let other_ways = self.ln_choose(all - bad, matching - hits);
                (bad_ways + other_ways - whole).exp()
            })
            .sum();
        sum.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fishers_test_agrees_with_known_values() {
        let odds = Odds::up_to(300);
        // The lady tasting tea: all four right of eight.
        assert!((odds.fisher(8, 4, 4, 4) - 1.0 / 70.0).abs() < 1e-12);
        assert!((odds.fisher(8, 4, 4, 3) - 17.0 / 70.0).abs() < 1e-12);
        assert!((odds.fisher(24, 10, 12, 9) - 0.001_379_728).abs() < 1e-8);
        assert!((odds.fisher(8, 4, 4, 0) - 1.0).abs() < 1e-12);
        assert!((odds.fisher(5, 5, 2, 2) - 1.0).abs() < 1e-12);
        assert!(odds.fisher(220, 20, 20, 20) < 1e-20);
    }
}
