//! Which rows a row reads: the geometry of a convolution or pool as a table, so that no kernel has
//! to know strides, padding or dilation.

/// No row: the tap falls into the padding.
const NONE: u32 = u32::MAX;

/// For each target row (an output position of one sample) and tap, the source row (an input
/// position), if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowTable {
    taps: usize,
    source_rows: usize,
    sources: Vec<u32>,
}

impl RowTable {
    /// A table of `rows` target rows; `source` gives the source row of a target row and tap.
    ///
    /// # Panics
    /// When a source row is not below `source_rows`.
    #[must_use]
    pub(crate) fn new(
        rows: usize,
        taps: usize,
        source_rows: usize,
        source: impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let one = |row: usize, tap: usize| match source(row, tap) {
            None => NONE,
            Some(found) => {
                assert!(found < source_rows, "row {found} of {source_rows}");
                u32::try_from(found).unwrap_or(NONE)
            }
        };
        let mut sources = Vec::with_capacity(rows * taps);
        sources.extend(
            (0..rows).flat_map(|row| (0..taps).map(move |tap| (row, tap))).map(|(row, tap)| one(row, tap)),
        );
        Self { taps, source_rows, sources }
    }

    /// Each row reads itself.
    #[must_use]
    pub(crate) fn identity(rows: usize) -> Self {
        Self::new(rows, 1, rows, |row, _| Some(row))
    }

    /// Whether each row reads itself, and there is no other.
    #[must_use]
    pub(crate) fn is_identity(&self) -> bool {
        let own = |row: usize| self.source(row, 0) == Some(row);
        self.taps == 1 && self.rows() == self.source_rows && (0..self.source_rows).all(own)
    }

    /// How many target rows a sample has.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.sources.len() / self.taps
    }

    /// Bytes that the table takes.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.sources.as_slice())
    }

    /// How many source rows a sample has.
    #[must_use]
    pub(crate) fn source_rows(&self) -> usize {
        self.source_rows
    }

    /// How many taps a row has.
    #[must_use]
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// The source row of a tap.
    #[inline(always)]
    #[must_use]
    pub(crate) fn source(&self, row: usize, tap: usize) -> Option<usize> {
        let found = self.sources[row * self.taps + tap];
        (found != NONE).then_some(found as usize)
    }

    /// The other way round: for each source row, by which taps it is read, and from which target
    /// rows.
    #[must_use]
    pub(crate) fn links(&self) -> Links {
        self.links_of(&(0..self.rows()).collect::<Vec<_>>())
    }

    /// The links of only some of the target rows.
    #[must_use]
    pub(crate) fn links_of(&self, rows: &[usize]) -> Links {
        let mut reads = vec![Vec::new(); self.source_rows];
        for tap in 0..self.taps {
            for &row in rows {
                if let Some(source) = self.source(row, tap) {
                    reads[source].push(Link { tap, row });
                }
            }
        }
        let mut starts = Vec::with_capacity(reads.len() + 1);
        let mut links = Vec::with_capacity(reads.iter().map(Vec::len).sum());
        starts.push(0);
        for list in reads {
            links.extend(list);
            starts.push(links.len());
        }
        Links { rows: self.rows(), starts, links }
    }
}

/// One reading of a source row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The tap by which it is read.
    pub(crate) tap: usize,
    /// The row that reads it.
    pub(crate) row: usize,
}

/// A [`RowTable`] transposed: the geometry of a pullback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    rows: usize,
    starts: Vec<usize>,
    links: Vec<Link>,
}

impl Links {
    /// How many rows there are to write: the table's source rows.
    #[must_use]
    pub(crate) fn targets(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many rows there are to read: the table's target rows.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the links take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.starts.as_slice()) + size_of_val(self.links.as_slice())
    }

    /// By which taps the row of a sample is read, and by which rows, counted through all samples.
    #[inline(always)]
    pub(crate) fn readers(&self, row: usize) -> impl DoubleEndedIterator<Item = (Link, usize)> {
        let (sample, target) = (row / self.targets(), row % self.targets());
        self.of(target).iter().map(move |link| (*link, sample * self.rows + link.row))
    }

    /// By which taps and rows a row is read.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of(&self, target: usize) -> &[Link] {
        &self.links[self.starts[target]..self.starts[target + 1]]
    }
}

#[cfg(test)]
mod tests {
    //! A stride, padding and the transposition by hand.

    use super::*;

    #[test]
    fn links_are_the_table_transposed() {
        // Three taps, stride 2, padding 1, over four rows: [-1 0 1], [1 2 3].
        let table = RowTable::new(2, 3, 4, |row, tap| (2 * row + tap).checked_sub(1).filter(|&at| at < 4));
        assert_eq!((table.rows(), table.taps(), table.source_rows()), (2, 3, 4));
        assert_eq!([0, 1, 2].map(|tap| table.source(0, tap)), [None, Some(0), Some(1)]);
        let links = table.links();
        assert_eq!((links.targets(), links.rows()), (4, 2));
        assert_eq!(links.of(0), [Link { tap: 1, row: 0 }]);
        assert_eq!(links.of(1), [Link { tap: 0, row: 1 }, Link { tap: 2, row: 0 }]);
        assert_eq!(links.of(3), [Link { tap: 2, row: 1 }]);
    }
}
