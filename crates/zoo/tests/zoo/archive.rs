//! PyTorch's files, made in the tests: pickles assembled by hand, and the archive around them.

/// A zip archive of stored records.
pub(crate) fn archive(records: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in records {
        let length = (bytes.len() as u32).to_le_bytes();
        let offset = (file.len() as u32).to_le_bytes();
        let names = (name.len() as u16).to_le_bytes();
        // Version, flags, method (stored), time, date, checksum, two lengths, length of the name.
        let shared = [&[0; 14][..], &length, &length, &names].concat();
        file.extend([b"PK\x03\x04", &shared[..], &[0; 2], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\0\0", &shared[..], &[0; 12], &offset, name.as_bytes()].concat());
    }
    let (at, size) = (file.len() as u32, directory.len() as u32);
    let count = (records.len() as u16).to_le_bytes();
    file.extend(directory);
    file.extend(
        [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0; 2]].concat(),
    );
    file
}

/// A zip archive with a 64-bit end record.
pub(crate) fn widened(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = archive(records);
    let mut end = file.split_off(file.len() - 22);
    let wide = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap())).to_le_bytes();
    let (count, start) = ((records.len() as u64).to_le_bytes(), (file.len() as u64).to_le_bytes());
    let record =
        [b"PK\x06\x06", &44u64.to_le_bytes()[..], &[0; 12], &count, &count, &wide(12), &wide(16)].concat();
    let locator = [b"PK\x06\x07", &[0; 4][..], &start, &1u32.to_le_bytes()].concat();
    end[8..20].fill(0xff);
    file.extend([record, locator, end].concat());
    file
}

/// A PyTorch file with this pickle and one storage `0` of these floats.
pub(crate) fn torch_file(pickle: &[u8], floats: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    archive(&[
        ("x/data.pkl", pickle),
        ("x/byteorder", b"little"),
        ("x/data/0", &bytes),
        ("x/version", b"3\n"),
    ])
}

/// A pickle of one value.
pub(crate) fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// A text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A dict.
pub(crate) fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(key, value)| [text(key), value.to_vec()].concat());
    [&b"}("[..], &entries.collect::<Vec<u8>>(), b"u"].concat()
}

/// A tuple of integers.
fn numbers(numbers: &[i32]) -> Vec<u8> {
    let items = numbers.iter().flat_map(|number| [&b"J"[..], &number.to_le_bytes()].concat());
    [&b"("[..], &items.collect::<Vec<u8>>(), b"t"].concat()
}

/// A tensor on the storage `key` of `count` floats, as `torch.save` writes it.
pub(crate) fn tensor(key: &str, count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let storage = [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(key), text("cpu")].concat();
    let number = |number: i32| [&b"J"[..], &number.to_le_bytes()].concat();
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
        &storage,
        &number(count),
        b"tQ",
        &number(offset),
        &numbers(shape),
        &numbers(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}
