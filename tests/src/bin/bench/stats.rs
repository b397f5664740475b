//! Medians, and what lies around them.

/// A row of measurements, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Nine of ten are not above it.
    pub(crate) nine_in_ten: f64,
}

impl Summary {
    /// `None` if nothing was measured.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        let nine_in_ten = values[(values.len() * 9).div_ceil(10) - 1];
        Some(Self { median: f64::midpoint(lower, upper), min, max, nine_in_ten })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|summary| summary.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn nine_of_ten_are_not_above_the_figure() {
        let nine = |count: u32| Summary::of((1..=count).map(f64::from)).map(|summary| summary.nine_in_ten);
        assert_eq!([1, 5, 10, 20, 21].map(nine), [1.0, 5.0, 9.0, 18.0, 19.0].map(Some));
    }
}
