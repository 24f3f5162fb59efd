//! Columns compressed with Snappy, which our build of the parquet crate does not support: their
//! pages are decompressed here and passed to its decoders.
//!
//! Layout of a column in a row group: for each page a header (a Thrift struct, `thrift.rs`)
//! followed by its body. A data page V1 and a dictionary page are compressed as a whole. A data
//! page V2 begins with uncompressed levels.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::basic::{Compression, Encoding};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::snappy::decompress;
use super::thrift::Struct;

/// A row group whose columns may be compressed with Snappy.
pub(super) struct PictureGroup<'a> {
    pub(super) group: Box<dyn RowGroupReader + 'a>,
    pub(super) file: &'a File,
}

impl RowGroupReader for PictureGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let chunk = self.metadata().column(column);
        if chunk.compression() != Compression::SNAPPY {
            return self.group.get_column_page_reader(column);
        }
        // The column chunk begins with the dictionary page, if there is one.
        let start = chunk.dictionary_page_offset().unwrap_or(i64::MAX).min(chunk.data_page_offset());
        let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
        let (start, length) = range.ok_or_else(|| fault("a column lies before the file's start"))?;
        let (mut file, mut bytes) = (self.file, Vec::new());
        file.seek(SeekFrom::Start(start))?;
        file.take(length).read_to_end(&mut bytes)?;
        Ok(Box::new(Pages { bytes, at: 0, left: chunk.num_values() }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

fn fault(why: &str) -> ParquetError {
    ParquetError::General(why.to_owned())
}

/// The pages of one column of a row group.
struct Pages {
    bytes: Vec<u8>,
    at: usize,
    /// Number of values in the remaining pages.
    left: i64,
}

/// Field numbers of a page's header: the uncompressed and the compressed size of its body, and the
/// struct of each kind of page.
mod field {
    pub(super) const PLAIN_SIZE: i64 = 2;
    pub(super) const SIZE: i64 = 3;
    pub(super) const DATA: i64 = 5;
    pub(super) const DICTIONARY: i64 = 7;
    pub(super) const DATA_V2: i64 = 8;
}

impl Pages {
    /// The next header and the offset of its body; `None` after the last page.
    fn header(&self) -> Result<Option<(Struct, usize)>> {
        if self.left <= 0 {
            return Ok(None);
        }
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let header =
            Struct::read(&mut rest).ok_or_else(|| fault("the header of a page is damaged or cut short"))?;
        Ok(Some((header, self.bytes.len() - rest.len())))
    }

    /// The decompressed body of a page; its first `plain` bytes are not compressed.
    fn body(&self, header: &Struct, start: usize, plain: usize, compressed: bool) -> Result<Vec<u8>> {
        let size = |number| header.count(number).map(|size| size as usize);
        let found = size(field::SIZE).zip(size(field::PLAIN_SIZE)).and_then(|(size, length)| {
            let (levels, rest) = self.bytes.get(start..)?.get(..size)?.split_at_checked(plain)?;
            let values = match compressed {
                true => decompress(rest, length.checked_sub(plain)?)?,
                false => rest.to_vec(),
            };
            Some([levels, &values].concat())
        });
        found.ok_or_else(|| fault("a page is damaged or cut short"))
    }

    /// The page that a header describes; `None` for kinds that are not needed.
    fn page(&self, header: &Struct, start: usize) -> Result<Option<Page>> {
        let lacking = || fault("the header of a page lacks a field");
        if let Some(own) = header.inner(field::DATA) {
            return Ok(Some(Page::DataPage {
                buf: self.body(header, start, 0, true)?.into(),
                num_values: own.count(1).ok_or_else(lacking)?,
                encoding: encoding(own.integer(2))?,
                def_level_encoding: encoding(own.integer(3))?,
                rep_level_encoding: encoding(own.integer(4))?,
                statistics: None,
            }));
        }
        if let Some(own) = header.inner(field::DICTIONARY) {
            return Ok(Some(Page::DictionaryPage {
                buf: self.body(header, start, 0, true)?.into(),
                num_values: own.count(1).ok_or_else(lacking)?,
                encoding: encoding(own.integer(2))?,
                is_sorted: own.integer(3) == Some(1),
            }));
        }
        let Some(own) = header.inner(field::DATA_V2) else { return Ok(None) };
        let (definitions, repetitions) = own.count(5).zip(own.count(6)).ok_or_else(lacking)?;
        // The levels at the beginning are never compressed in a data page V2.
        let plain = definitions as usize + repetitions as usize;
        Ok(Some(Page::DataPageV2 {
            buf: self.body(header, start, plain, own.integer(7) != Some(0))?.into(),
            num_values: own.count(1).ok_or_else(lacking)?,
            encoding: encoding(own.integer(4))?,
            num_nulls: own.count(2).ok_or_else(lacking)?,
            num_rows: own.count(3).ok_or_else(lacking)?,
            def_levels_byte_len: definitions,
            rep_levels_byte_len: repetitions,
            is_compressed: false,
            statistics: None,
        }))
    }

    /// Advances past a page.
    fn pass(&mut self, header: &Struct, start: usize) -> Result<()> {
        let size = header.count(field::SIZE).ok_or_else(|| fault("a page does not state its size"))?;
        self.at = start.saturating_add(size as usize);
        let data = header.inner(field::DATA).or_else(|| header.inner(field::DATA_V2));
        let values = data.and_then(|own| own.integer(1)).unwrap_or(0);
        self.left = self.left.saturating_sub(values);
        Ok(())
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        while let Some((header, start)) = self.header()? {
            let page = self.page(&header, start)?;
            self.pass(&header, start)?;
            // Index pages are only for seeking, and are skipped.
            if page.is_some() {
                return Ok(page);
            }
        }
        Ok(None)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.header()?.map(|(header, _)| {
            let (first, second) = (header.inner(field::DATA), header.inner(field::DATA_V2));
            let count = |own: Option<&Struct>, number| Some(own?.count(number)? as usize);
            PageMetadata {
                num_rows: count(second, 3),
                num_levels: count(first.or(second), 1),
                is_dict: header.inner(field::DICTIONARY).is_some(),
            }
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        match self.header()? {
            Some((header, start)) => self.pass(&header, start),
            None => Ok(()),
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// An encoding by its number in the format.
#[expect(deprecated, reason = "older writers name it for levels that a column does not have")]
fn encoding(number: Option<i64>) -> Result<Encoding> {
    Ok(match number {
        Some(0) => Encoding::PLAIN,
        Some(2) => Encoding::PLAIN_DICTIONARY,
        Some(3) => Encoding::RLE,
        Some(4) => Encoding::BIT_PACKED,
        Some(5) => Encoding::DELTA_BINARY_PACKED,
        Some(6) => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Some(7) => Encoding::DELTA_BYTE_ARRAY,
        Some(8) => Encoding::RLE_DICTIONARY,
        Some(9) => Encoding::BYTE_STREAM_SPLIT,
        other => return Err(ParquetError::General(format!("an unknown encoding of a page: {other:?}"))),
    })
}
