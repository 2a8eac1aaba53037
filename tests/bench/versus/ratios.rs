//! Ratios of what was measured side by side: their median, and how sure it is.

/// Samples that the interval is drawn from.
const RESAMPLED: usize = 10_000;

/// The median of paired ratios, and the interval that holds it in 95 of 100 resamplings.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    /// Of each pair, what the first is to the second.
    pub(crate) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let ratios: Vec<f64> = pairs.map(|(one, other)| one / other).collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ratios[usize::try_from(state >> 33).unwrap() % ratios.len()]
        };
        let mut medians: Vec<f64> =
            (0..RESAMPLED).map(|_| median((0..ratios.len()).map(|_| draw()).collect())).collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: usize| medians[RESAMPLED * share / 1000];
        Self { median: median(ratios.clone()), low: at(25), high: at(975) }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, low, high } = self;
        write!(formatter, "**{median:.2}** [{low:.2}, {high:.2}]")
    }
}

/// The one in the middle.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    if of.len().is_multiple_of(2) { f64::midpoint(of[middle - 1], of[middle]) } else { of[middle] }
}
