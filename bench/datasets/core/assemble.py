"""From pairs of files to the splits of a dataset: the pairs are read, resized, cached and split."""

def split(
    pool: int, held_out: int, *, val: float, test: float | None = None, seed: int, where: str
) -> list[np.ndarray]:
    """Numbers of the train, val and test pairs, ascending; a share above zero gets at least one pair.

    held_out: number of test pairs that follow those of the pool, if it has a test set of its own. Raises ``DataError``.
    """
    fraction = 0.0 if held_out else TEST_FRACTION if test is None else test
    n_val, n_test = (max(1, round(share * pool)) if share else 0 for share in (val, fraction))
    if n_val + n_test >= pool:
        raise DataError([f"{where}: {pool} pairs cannot be split into train, {n_val} val and {n_test} test"])
    if not n_test and not held_out:
        raise DataError(["dataset.test: 0 leaves nothing to score. Give a share or test_images and test_masks"])
    order = np.random.default_rng(seed).permutation(pool)
    for_val, for_test, for_train = np.split(order, [n_val, n_val + n_test])
    if held_out:
        for_test = np.arange(pool, pool + held_out)
    return [np.sort(for_train), np.sort(for_val), np.sort(for_test)]


def assemble(
    pool: Mapping[str, list[Pair]],
    tests: Mapping[str, list[Pair]],
    splits: list[np.ndarray],
    readings: Mapping[str, Reading],
    transform: TransformConfig,
    notes: list[str],
    progress: Progress,
) -> Data:
    """Reads, resizes and caches sets of pairs that were found.

    pool, tests: by the name of the set; splits: numbers of the train and val pairs, and of the test pairs of a pool
    without tests of its own, in the order of pool and tests; readings: how each set is read, which may differ in what
    is the object. Raises ``DataError``.
    """
    sets = {**pool, **tests}
    pairs = [pair for each in sets.values() for pair in each]
    reading_of = [readings[name] for name, each in sets.items() for _ in each]
    stamps = [_stamp(path) for pair in pairs for path in pair[1:]]
    contents = cache.remembered({"contents": stamps}, lambda: [content_of(pair) for pair in pairs])

    def read(i: int) -> cache.Pair:
        image, mask = _open_pair(pairs[i], reading_of[i])
        small = resize_mask(mask.pixels, transform.size, transform.mask_resize)
        return resize_image(image, transform.size), small, _facts(mask, reading_of[i].num_classes)

    files = [content.partition("/")[2] for content in contents]
    how = [(len(each), readings[name]) for name, each in sets.items()]
    key = {"files": files, "mask_resize": transform.mask_resize, "readings": how, "pillow": PILLOW}
    kind = np.int16 if any(reading.ignore for reading in readings.values()) else np.uint8
    images, masks, facts = cache.resized_pairs(key, len(pairs), transform.size, read, progress, notes, kind)

    def ground_truth(i: int) -> np.ndarray:
        return _open_mask(pairs[i], reading_of[i]).pixels

    def changed() -> list[str]:
        now = [_stamp_if_there(path) for pair in pairs for path in pair[1:]]
        moved = [i for i in range(len(pairs)) if now[2 * i : 2 * i + 2] != stamps[2 * i : 2 * i + 2]]
        return [f"{pairs[i].image} or its mask has changed since" for i in moved if content_of(pairs[i]) != contents[i]]

    bounds = np.cumsum([0, *map(len, sets.values())])
    ranges = {name: np.arange(low, high) for name, low, high in zip(sets, bounds, bounds[1:])}
    test_ranges = {name: ranges[name] for name in tests} or {"test": splits[2]}
    chosen = [*splits[:2], *test_ranges.values()]
    made = [Split(images, masks, rows, tuple(pairs[i].stem for i in rows), ground_truth) for rows in chosen]
    notes += _seen_twice(splits[0], test_ranges, pairs, files)
    notes += _mask_notes(facts)
    if not any(facts[i]["object"] for i in splits[0]):
        raise DataError([f"none of the {len(splits[0])} training masks holds an object: there is nothing to learn"])
    content = [[contents[i] for i in rows] for rows in chosen]
    decided = [reading[3:] for reading in readings.values()]  # what is object, and what is left out
    if any(each != Reading()[3:] for each in decided):
        content.append(decided)
    return Data(
        *made[:3],
        fingerprint=cache.digest(content),
        notes=tuple(notes),
        test_sets=dict(zip(test_ranges, made[2:])),
        set_fingerprints={name: set_fingerprint([contents[i] for i in rows]) for name, rows in ranges.items()},
        changed=changed,
        almost_white={
            name: [pairs[i].stem for i in rows if facts[i]["almost_white"]] for name, rows in test_ranges.items()
        },
    )


def _open_pair(pair: Pair, reading: Reading) -> tuple[Image.Image, Mask]:
    image, drawn = read_pair(pair.image, pair.mask, reading.exif)
    mask = to_mask(drawn, pair.mask, reading)
    height, width = mask.pixels.shape
    if image.size != (width, height):
        sizes = f"{image.width} x {image.height} and {width} x {height}"
        raise DataError([f"{pair.mask}: image and mask differ in size, {sizes}"])
    if reading.single_value_masks == "error" and reading.num_classes == 1 and mask.single:
        allow = "dataset.single_value_masks=allow"
        raise DataError([f"{pair.mask}: {mask.held}. Remove the pair, or set {allow} if it is meant"])
    return image, mask


def _open_mask(pair: Pair, reading: Reading) -> Mask:
    return to_mask(read_mask(pair.mask, pair.image, reading.exif), pair.mask, reading)


def _facts(mask: Mask, num_classes: int) -> dict[str, Any]:
    """What the cache keeps of a mask beside its pixels."""
    counted = mask.pixels[mask.pixels != IGNORED]
    return {
        "how": mask.how,
        "object": bool((counted > (OBJECT if num_classes == 1 else 0)).any()),
        "almost_white": bool(((counted > OBJECT) & (counted < 255)).any()),
    }


def _mask_notes(facts: list[dict[str, Any]]) -> list[str]:
    """A line for each kind of mask that is not simply 0 and 255."""
    kinds = Counter(fact["how"] for fact in facts)
    return [f"{count} of {len(facts)} masks: {how}" for how, count in kinds.most_common() if how != BINARY]


def _seen_twice(train: np.ndarray, tests: Mapping[str, np.ndarray], pairs: list[Pair], files: list[str]) -> list[str]:
    """A line for each test set that shares image files with the training pairs."""
    images = [file.partition("/")[0] for file in files]
    learnt = {images[i] for i in train}
    shared = {name: [pairs[i].stem for i in rows if images[i] in learnt] for name, rows in tests.items()}
    return [
        f"{len(stems)} images of {name} are also trained on, byte for byte: {some(stems)}"
        for name, stems in shared.items()
        if stems
    ]


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _stamp_if_there(path: Path) -> tuple[str, int, int] | None:
    return _stamp(path) if path.exists() else None
