//! `influence merge`: merges the parts of a run, to the same bytes as one whole run.
//!
//! The journal next to each part states to which run it belongs, which part it is, and the hash of
//! its contents.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::format::Format;
use super::journal::{JournalHeader, read as read_journal};
use super::keeper::{hash_of, journal};
use super::output_file::{OutputPath, at as fault, finish, writable};
use super::rows::{read_spool, write_table};
use crate::arguments::MergeArguments;
use crate::failure::{Failure, Result};
use crate::folder::{self, Drawn, LIST};
use crate::gathered::{Gathered, LayerValues, NetworkNames};
use crate::inputs::Inputs;
use crate::layers::sorted;
use crate::layers_arguments::LayerOrder;
use crate::record::Record;
use crate::terminal;

/// One part, with the header of its journal.
struct MergePart {
    /// The file of rows, or the list of a folder of maps.
    path: PathBuf,
    header: JournalHeader,
}

/// Interprets the arguments and merges.
pub(crate) fn command(arguments: &MergeArguments) -> Result<()> {
    let parts = parts(&arguments.shards)?;
    let Some(first) = parts.first() else { return Err(Failure::new("merge: no parts are given")) };
    let mut inputs = Inputs::default();
    parts.iter().for_each(|part| inputs.add(&part.path));
    inputs.spare("--out", &arguments.out)?;
    let files = match first.header.command.as_str() {
        "map" => maps(&parts, &arguments.out)?,
        "layers" => layers(&parts, &arguments.out)?,
        _ => rows(&parts, &arguments.out)?,
    };
    if !arguments.quiet {
        writeln!(terminal::output(), "{} parts, {files} in {}", parts.len(), arguments.out.display())?;
    }
    Ok(())
}

/// All parts in order. Checks that they are complete, belong to one run, and that none is missing
/// or repeated.
fn parts(paths: &[PathBuf]) -> Result<Vec<MergePart>> {
    let mut parts = paths.iter().map(|path| part(path)).collect::<Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.header.shard.map(|shard| shard.number));
    let Some(first) = parts.first() else { return Ok(parts) };
    let Some(of) = first.header.shard.map(|shard| shard.of) else { return Ok(parts) };
    // All parts must have the settings and inputs of the first; the shard number is not compared.
    for part in &parts[1..] {
        if let Some(difference) = first.header.difference(&part.header) {
            let (one, other) = (first.path.display(), part.path.display());
            return Err(Failure::new(format!("{other} does not belong to the run of {one}: {difference}")));
        }
    }
    for number in 1..=of {
        let own: Vec<&MergePart> = parts
            .iter()
            .filter(|part| part.header.shard.is_some_and(|shard| shard.number == number))
            .collect();
        match own[..] {
            [_] => {}
            [] => return Err(Failure::new(format!("part {number} of {of} is missing"))),
            [one, other, ..] => {
                let (one, other) = (one.path.display(), other.path.display());
                return Err(Failure::new(format!("part {number} of {of} is there twice: {one} and {other}")));
            }
        }
    }
    match parts.iter().find(|part| part.header.shard.is_none_or(|shard| shard.of != of)) {
        None => Ok(parts),
        Some(other) => Err(Failure::new(format!("{}: not one of {of} parts", other.path.display()))),
    }
}

/// Reads one part and checks its contents against the hash in its journal.
fn part(path: &Path) -> Result<MergePart> {
    let path = if path.is_dir() { path.join(LIST) } else { path.to_owned() };
    let refuse = |why: String| Err(Failure::new(format!("{}: {why}", path.display())));
    let book = journal(&path);
    if !book.exists() {
        return refuse(format!("not a part of a run: there is no {} next to it", book.display()));
    }
    let (header, _, entries) = read_journal(&book)?;
    if header.shard.is_none() {
        return refuse("not a part of a run, but a whole run that is not complete".into());
    }
    let sum = entries.last().and_then(|(entry, _)| entry.complete.clone());
    match sum {
        None => refuse("this part is not complete: run it again with --resume".into()),
        Some(sum) if hash_of(&path)? != sum => {
            refuse("the contents are not those that the run wrote: run this part again".into())
        }
        Some(_) => Ok(MergePart { path, header }),
    }
}

/// Checks the path of the result; with `same`, its format must be that of the parts.
fn result_path(parts: &[MergePart], out: &Path, same: bool) -> Result<(PathBuf, Format)> {
    let refuse = |why: &str| Err(Failure::new(format!("--out {}: {why}", out.display())));
    let Some(format) = Format::of(out) else {
        return refuse("the name must end in .csv, .jsonl or .parquet");
    };
    format.check()?;
    let own = parts.first().and_then(|part| part.header.config.get("format")).cloned().unwrap_or_default();
    if same && own != format!("Some({format:?})") {
        return refuse("give it the extension of the parts: the result has their format");
    }
    match writable("--out", out)? {
        OutputPath::File(path) => Ok((path, format)),
        OutputPath::Pipe(_) => refuse("this is not a regular file"),
    }
}

/// Concatenates the rows of all parts; a CSV header is written only once.
fn rows(parts: &[MergePart], out: &Path) -> Result<String> {
    let (path, format) = result_path(parts, out, true)?;
    if format == Format::Parquet {
        return parquet(parts, &path);
    }
    let mut count = 0;
    finish(&path, |file| {
        let mut to = BufWriter::new(file);
        for (at, part) in parts.iter().enumerate() {
            let mut from = BufReader::new(File::open(&part.path).map_err(|error| fault(&part.path, &error))?);
            if format == Format::Csv {
                let mut head = Vec::new();
                from.read_until(b'\n', &mut head).map_err(|error| fault(&part.path, &error))?;
                if at == 0 {
                    to.write_all(&head).map_err(|error| fault(&path, &error))?;
                }
            }
            io::copy(&mut from, &mut to).map_err(|error| fault(&path, &error))?;
            count += part.header.units;
        }
        to.flush().map_err(|error| fault(&path, &error))
    })?
    .name()?;
    Ok(format!("{count} images"))
}

/// Rewrites the rows of all parts as one file. Row groups of parts end where those of the whole do
/// not, so bytes cannot be copied.
#[cfg(feature = "parquet")]
fn parquet(parts: &[MergePart], path: &Path) -> Result<String> {
    use super::parquet::{metadata, read};
    use crate::row::ScoreRow;

    let open = |path: &Path| File::open(path).map_err(|error| fault(path, &error));
    let constants = match parts.first() {
        Some(part) => metadata(open(&part.path)?)?,
        None => Vec::new(),
    };
    super::rows::write_parquet(path, ScoreRow::COLUMNS, &constants, |each| {
        parts.iter().try_for_each(|part| read(open(&part.path)?, ScoreRow::COLUMNS, &mut *each))
    })?
    .name()?;
    Ok(format!("{} images", parts.iter().map(|part| part.header.units).sum::<usize>()))
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &[MergePart], _: &Path) -> Result<String> {
    Format::Parquet.check().map(|()| String::new())
}

/// Computes the table of layers over the images of all parts.
fn layers(parts: &[MergePart], out: &Path) -> Result<String> {
    let (path, format) = result_path(parts, out, false)?;
    let config = parts.first().map(|part| &part.header.config);
    let word = |name: &str| config.and_then(|config| config.get(name)).cloned().unwrap_or_default();
    let subjects: Vec<NetworkNames> = serde_json::from_str(&word("layers"))
        .map_err(|error| Failure::new(format!("the journals do not name the layers: {error}")))?;
    let networks = subjects.len().max(1);
    let mut gathered = Gathered::new(subjects);
    for part in parts {
        gathered.rewind();
        let images = part.header.units / networks;
        read_spool(&part.path, LayerValues::COLUMNS, &mut |cells| gathered.add(images, &cells))?;
    }
    let sort = if word("sort") == format!("{:?}", LayerOrder::Influence) {
        LayerOrder::Influence
    } else {
        LayerOrder::Depth
    };
    let tables = gathered.rows();
    let rows = sorted(tables.iter().map(Vec::as_slice), sort);
    write_table(&path, format, &rows, &[])?.name()?;
    Ok(format!("{} layers", rows.len()))
}

/// Copies the files of all folders into one.
fn maps(parts: &[MergePart], out: &Path) -> Result<String> {
    folder::check(out)?;
    if !out.exists() {
        fs::create_dir(out).map_err(|error| fault(out, &error))?;
    }
    folder::unmixed(out, |_| false)?;
    let mut count = 0;
    for part in parts {
        let folder = part.path.parent().unwrap_or(Path::new("."));
        for drawn in Drawn::read(&part.path)? {
            drawn.check(folder)?;
            for file in &drawn.files {
                let to = out.join(&file.name);
                fs::copy(folder.join(&file.name), &to).map_err(|error| fault(&to, &error))?;
                count += 1;
            }
        }
    }
    Ok(format!("{count} files"))
}
