//! Opens the samples of a job: which data set, which of its images, and their preprocessing.

use std::path::{Path, PathBuf};

use influence::Target;
use influence_data::{
    Arrays, Dataset, DatasetKind, Listing, OnError, Recipe, Refused, Resize, Selection, Split, files,
};

use crate::arguments::RunArguments;
use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::inputs::Inputs;
use crate::terminal;

/// The samples of a job.
#[derive(Debug)]
pub(crate) struct JobSamples {
    pub(crate) data: Data,
    /// The requested images in the requested order, without skipped ones.
    pub(crate) images: Vec<usize>,
    /// The preprocessing of pictures, in words; empty if there was none.
    pub(crate) preparation: String,
}

/// The names of data sets that are not official files.
const ARRAYS: &str = "arrays";
const FOLDER: &str = "folder";
const PARQUET: &str = "parquet";

/// Opens the requested samples.
pub(crate) fn open(
    arguments: &RunArguments,
    target: &Target,
    selection: &Selection,
    inputs: &mut Inputs,
) -> Result<JobSamples> {
    let name = arguments.source.dataset.as_deref();
    refuse_flags(arguments)?;
    // Folders and tables list encoded pictures, of which only the requested ones are decoded. Other
    // data are read as a whole.
    let listing = match (name, &arguments.source.data) {
        (Some(FOLDER), Some(folder)) => Some(listed(folder, arguments.source.labels.as_deref(), inputs)?),
        #[cfg(feature = "parquet")]
        (Some(PARQUET), Some(path)) => Some(crate::hub::listing(path, inputs)?),
        (Some(name @ (FOLDER | PARQUET)), _) => return Err(absent(name)),
        _ => None,
    };
    if let Some(listing) = listing {
        return pictures(arguments, target, selection, inputs, listing);
    }
    let mut data = match name {
        Some(ARRAYS) => Data::Arrays(arrays(arguments, inputs)?),
        _ => Data::Images(dataset(arguments, inputs)?),
    };
    refuse_unlabelled(target, data.is_labelled(), data.name())?;
    let images = selection.resolve(data.len())?;
    // A training set can take as much memory as a network, so samples after the last requested one
    // are dropped.
    data.truncate(images.iter().max().map_or(0, |last| last + 1));
    Ok(JobSamples { data, images, preparation: String::new() })
}

/// The error if the path of a picture data set is missing.
fn absent(name: &str) -> Failure {
    match name {
        PARQUET if cfg!(not(feature = "parquet")) => {
            Failure::new("--dataset parquet: this build has no parquet; build it with --features parquet")
        }
        PARQUET => Failure::new("--dataset parquet: add --data FILE.parquet, or the folder with several"),
        _ => Failure::new(
            "--dataset folder: add --data DIR, a folder with a sub-folder of pictures for each class",
        ),
    }
}

/// Refuses flags for picture files if the data set has none.
fn refuse_flags(arguments: &RunArguments) -> Result<()> {
    let name = arguments.source.dataset.as_deref();
    let pictures = matches!(name, Some(FOLDER | PARQUET));
    let of_pictures = [
        ("--resize", arguments.source.resize.is_some()),
        ("--crop", arguments.source.crop.is_some()),
        ("--grey", arguments.source.grey),
        ("--on-error", arguments.on_error.is_some()),
    ];
    if let Some((flag, _)) = of_pictures.iter().find(|(_, given)| *given && !pictures) {
        return Err(Failure::new(format!("{flag} is for --dataset folder and parquet: leave it out")));
    }
    if arguments.source.labels.is_some() && name != Some(FOLDER) {
        return Err(Failure::new("--labels is for --dataset folder: leave it out"));
    }
    let one = pictures || name == Some(ARRAYS);
    if one && arguments.split.is_some() {
        return Err(Failure::new(
            "--split: --data names a single split here; give --data the path of the other",
        ));
    }
    if one && arguments.source.own {
        return Err(Failure::new("--own is for data sets in official files: leave it out"));
    }
    Ok(())
}

/// Refuses the objective `label` if there are no labels.
fn refuse_unlabelled(target: &Target, labelled: bool, name: &str) -> Result<()> {
    match *target == Target::Label && !labelled {
        true => Err(Failure::new(format!(
            "{name} has no labels: add --objective predicted, entropy, margin or class:N"
        ))),
        false => Ok(()),
    }
}

/// Lists the pictures below a folder.
fn listed(folder: &Path, labels: Option<&Path>, inputs: &mut Inputs) -> Result<Listing> {
    let Some(table) = labels else { return Ok(Listing::folder(folder)?) };
    inputs.add(table);
    let fail = |why: String| Failure::new(format!("--labels {}: {why}", table.display()));
    let mut reader = csv::Reader::from_path(table).map_err(|error| fail(error.to_string()))?;
    let header = reader.headers().map_err(|error| fail(error.to_string()))?.clone();
    let column = |name: &str| {
        let index = header.iter().position(|found| found.trim() == name);
        index.ok_or_else(|| fail(format!("its first line has no column `{name}`: path,label is needed")))
    };
    let (path, label) = (column("path")?, column("label")?);
    let cell = |record: &csv::StringRecord, column| record.get(column).unwrap_or_default().trim().to_owned();
    let rows = reader.records().map(|record| {
        let record = record.map_err(|error| fail(error.to_string()))?;
        Ok((cell(&record, path), cell(&record, label)))
    });
    Ok(Listing::labelled(folder, &rows.collect::<Result<Vec<_>>>()?)?)
}

/// Decodes the requested pictures, and reports which are skipped.
fn pictures(
    arguments: &RunArguments,
    target: &Target,
    selection: &Selection,
    inputs: &mut Inputs,
    listing: Listing,
) -> Result<JobSamples> {
    refuse_unlabelled(target, listing.is_labelled(), listing.name())?;
    let images = selection.resolve(listing.len())?;
    let recipe = recipe(arguments)?;
    let on_error = match arguments.on_error.as_deref() {
        Some("skip") => OnError::Skip,
        _ => OnError::Stop,
    };
    listing.files(&images).for_each(|file| inputs.add(file));
    let stopped = |error: influence_data::Error| match error {
        influence_data::Error::Picture { .. } => {
            Failure::from(error).with("--on-error skip leaves such pictures out")
        }
        other => other.into(),
    };
    let (pictures, refused) = listing.load(&images, &recipe, on_error).map_err(stopped)?;
    refused.iter().for_each(tell);
    let images = images.into_iter().filter(|&index| pictures.has(index)).collect();
    Ok(JobSamples { data: Data::Pictures(pictures), images, preparation: words(&recipe) })
}

/// Reports a skipped picture and the cause on standard error; a closed standard error is ignored.
fn tell(Refused { index, name, why }: &Refused) {
    use std::io::Write;
    let _ = writeln!(terminal::errors(), "influence: image {index} is left out: {name}: {why}");
}

/// The preprocessing of every picture.
fn recipe(arguments: &RunArguments) -> Result<Recipe> {
    let resize = arguments.source.resize.as_deref().map(|text| size("--resize", text)).transpose()?;
    let crop = arguments.source.crop.as_deref().map(|text| size("--crop", text)).transpose()?;
    let crop = crop.map(|size| match size {
        Resize::To(size) => size,
        Resize::Shorter(side) => [side, side],
    });
    Ok(Recipe { resize, crop, grey: arguments.source.grey })
}

/// Parses `N` or `HxW`. Sides have at most 2^14 pixels.
fn size(flag: &str, text: &str) -> Result<Resize> {
    let side = |text: &str| text.trim().parse::<usize>().ok().filter(|side| (1..=1 << 14).contains(side));
    let found = match text.split_once('x') {
        None => side(text).map(Resize::Shorter),
        Some((height, width)) => {
            side(height).zip(side(width)).map(|(height, width)| Resize::To([height, width]))
        }
    };
    found
        .ok_or_else(|| Failure::new(format!("{flag} {text}: give pixels as in {flag} 224 or {flag} 224x320")))
}

/// The preprocessing in words.
fn words(recipe: &Recipe) -> String {
    let mut words = Vec::new();
    match recipe.resize {
        Some(Resize::Shorter(side)) => words.push(format!("resize {side}")),
        Some(Resize::To([height, width])) => words.push(format!("resize {height}x{width}")),
        None => {}
    }
    words.extend(recipe.crop.map(|[height, width]| format!("crop {height}x{width}")));
    words.extend(recipe.grey.then(|| "grey".to_owned()));
    words.join(", ")
}

/// Opens an array file.
fn arrays(arguments: &RunArguments, inputs: &mut Inputs) -> Result<Arrays> {
    let Some(file) = &arguments.source.data else {
        return Err(Failure::new("--dataset arrays: add --data FILE.npz, FILE.npy or FILE.safetensors"));
    };
    inputs.add(file);
    Ok(Arrays::open(file)?)
}

/// Opens the official files of a data set, or the embedded images.
fn dataset(arguments: &RunArguments, inputs: &mut Inputs) -> Result<Dataset> {
    let split = arguments.split.as_deref().map(str::parse::<Split>).transpose()?.unwrap_or(Split::Test);
    let folder: Option<&PathBuf> = arguments.source.data.as_ref();
    match (&arguments.source.dataset, folder) {
        (None, None) if split == Split::Test => Ok(Dataset::embedded()),
        (None, None) => Err(Failure::new(
            "--split train: the embedded sample belongs to the test split; name --dataset and --data",
        )),
        (None, Some(_)) => {
            Err(Failure::new("--data names a folder, but of which data set? Add --dataset mnist or cifar10"))
        }
        (Some(kind), folder) => {
            let kind: DatasetKind = kind.parse().map_err(|error: influence_data::Error| {
                Failure::from(error).with("and folder, parquet and arrays for files of your own")
            })?;
            let Some(folder) = folder else {
                return Err(Failure::new(format!(
                    "--dataset {kind}: where is it? Add --data DIR, the folder with its files"
                )));
            };
            files(kind, folder, split)?.iter().for_each(|file| inputs.add(file));
            let open = if arguments.source.own { Dataset::open_own } else { Dataset::open };
            Ok(open(kind, folder, split)?)
        }
    }
}
