"""The check finds each fault, goes on after it, and stays silent about a sound data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import assign_splits, check_dataset, find_cases
from edgekd.data.check import CheckReport
from edgekd.data.duplicates import find_near_duplicates, make_thumbnail
from edgekd.errors import InputError
from edgekd.specs import CropBox

MakeFolder = Callable[..., Path]


def _list(report: CheckReport) -> list[tuple[str, str, str | None]]:
    return [(finding.severity, finding.kind, finding.case) for finding in report.findings]


@pytest.fixture
def sound(make_folder: MakeFolder) -> Path:
    """A data set of 30 cases without any fault."""
    return make_folder(30)


def _name_splits(root: Path, rows: dict[str, tuple[str, str]]) -> None:
    """Write a manifest that puts every case into train, but for ``rows``: case → (group, split)."""
    lines = ["image,mask,group,split"]
    for path in sorted((root / "images").iterdir()):
        group, split = rows.get(path.stem, (f"g{path.stem}", "train"))
        lines.append(f"images/{path.name},masks/{path.name},{group},{split}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_sound_data_set_has_no_finding(sound: Path) -> None:
    report = check_dataset(sound, quiet=True)
    assert report.findings == () and not report.has_faults
    summary = report.summary
    assert summary["cases"] == summary["usable_cases"] == summary["groups"] == 30
    assert sum(split["cases"] for split in summary["splits"].values()) == 30
    assert summary["sizes"] == {
        "smallest_height": 40,
        "largest_height": 40,
        "smallest_width": 48,
        "largest_width": 48,
    }


def test_class_shares_are_those_of_the_pixels(sound: Path) -> None:
    widths = [24 - (12 + index % 8) for index in range(30)]
    share = sum(10 * width for width in widths) / (30 * 40 * 48)
    assert check_dataset(sound, quiet=True).summary["class_pixel_shares"] == pytest.approx([1 - share, share])


def test_every_bad_file_is_found_in_one_go(sound: Path, rng: np.random.Generator) -> None:
    images, masks = sound / "images", sound / "masks"
    (images / "c0.png").write_bytes((images / "c0.png").read_bytes()[:-300])
    (images / "c1.png").write_text("text")
    (masks / "c2.png").write_text("text")
    Image.fromarray(np.zeros((40, 47), np.uint8)).save(masks / "c3.png")
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(masks / "c4.png")
    (masks / "c5.png").unlink()
    (images / "c6.png").unlink()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(images / "c7.png")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(masks / "c7.png")
    Image.fromarray(rng.integers(0, 9, (20, 20), dtype=np.uint8)).save(images / "c8.png")
    Image.fromarray(np.ones((20, 20), np.uint8)).save(masks / "c8.png")
    report = check_dataset(sound, quiet=True)
    assert report.has_faults
    assert sorted(_list(report), key=lambda entry: str(entry[2])) == [
        ("fault", "unreadable image", "c0"),
        ("fault", "unreadable image", "c1"),
        ("fault", "unusable mask", "c2"),
        ("fault", "size mismatch", "c3"),
        ("fault", "undeclared classes", "c4"),
        ("fault", "image too small", "c7"),
        ("warning", "image too small", "c8"),
        ("fault", "image without mask", "images/c5.png"),
        ("fault", "mask without image", "masks/c6.png"),
    ]
    assert report.summary["usable_cases"] == 22
    assert json.loads(json.dumps(report.to_dict()))["summary"]["cases"] == 28


def test_empty_masks_are_one_warning(sound: Path) -> None:
    for index in range(7):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(sound / f"masks/c{index}.png")
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("warning", "empty masks", None)]
    assert report.findings[0].detail.startswith(
        "all background in 7 of 30 masks: c0, c1, c2, c3, c4 and 2 more"
    )
    assert not report.has_faults


def test_near_duplicates_across_splits_are_told_unless_in_one_group(sound: Path) -> None:
    pixels = np.asarray(Image.open(sound / "images/c0.png"))
    brighter = (pixels * 0.7 + 40).astype(np.uint8)
    Image.fromarray(brighter).save(sound / "images/c1.png")
    named = {"c1": ("b", "test"), "c2": ("c", "val")}
    _name_splits(sound, named)
    findings = _list(check_dataset(sound, quiet=True))
    assert findings == [("warning", "near-duplicate across splits", "images/c0.png")]
    _name_splits(sound, {"c1": ("gc0", "train"), "c2": ("c", "val"), "c3": ("d", "test")})
    assert _list(check_dataset(sound, quiet=True)) == []


def test_a_flood_of_near_duplicates_is_counted_and_not_listed(sound: Path) -> None:
    pixels = np.asarray(Image.open(sound / "images/c0.png")) // 2
    for index in range(30):
        Image.fromarray(pixels + np.uint8(index)).save(sound / f"images/c{index}.png")
    _name_splits(sound, {f"c{index}": (f"g{index}", "test" if index < 4 else "val") for index in range(10)})
    findings = check_dataset(sound, quiet=True).findings
    # 4 x 6 pairs of test and val, 10 x 20 pairs of these and train; 40 are listed.
    assert len(findings) == 41
    assert findings[-1].case is None and findings[-1].detail.startswith("pairs not listed: 184;")


@pytest.mark.parametrize(
    ("split", "severity", "kind"),
    [
        ("test", "fault", "duplicate across splits"),
        ("train", "warning", "duplicate"),
    ],
)
def test_equal_images_are_told(sound: Path, split: str, severity: str, kind: str) -> None:
    # Equal pixels in another file format are still equal.
    Image.open(sound / "images/c0.png").save(sound / "images/c1.png", compress_level=0)
    _name_splits(sound, {"c1": ("b", split), "c2": ("c", "val"), "c3": ("d", "test")})
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [(severity, kind, "images/c0.png")]
    assert "images/c1.png" in report.findings[0].detail


def test_group_across_named_splits_is_a_fault(sound: Path) -> None:
    _name_splits(sound, {"c1": ("gc0", "test"), "c2": ("c", "val"), "c3": ("d", "test")})
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("fault", "group crosses splits", "gc0")]
    assert report.summary["splits"]["test"]["cases"] == 2


def test_columns_that_may_be_the_group_are_told(sound: Path) -> None:
    _name_splits(sound, {"c1": ("b", "val"), "c2": ("c", "test")})
    table = sound / "manifest.csv"
    assert check_dataset(sound, quiet=True).findings == ()
    table.write_text(table.read_text().replace("group", "patient", 1))
    (finding,) = check_dataset(sound, quiet=True).findings
    assert (finding.severity, finding.kind) == ("warning", "unknown columns")
    assert "these are not used: patient" in finding.detail


def test_unknown_or_empty_splits_are_a_fault(sound: Path) -> None:
    # A group with a name that is none is no group in two splits.
    for group in ("b", "gc0"):
        _name_splits(sound, {"c1": (group, "validation")})
        findings = check_dataset(sound, quiet=True).findings
        assert [finding.kind for finding in findings if finding.severity == "fault"] == ["splits"]
        assert "the case images/c1.png names an unknown split: received 'validation'" in findings[0].detail
    _name_splits(sound, {"c1": ("b", "test")})
    (finding,) = check_dataset(sound, quiet=True).findings
    assert finding.kind == "splits" and "no case falls into val" in finding.detail


def test_a_split_that_stays_empty_by_hash_is_a_fault_beside_the_others_counts(
    make_folder: MakeFolder,
) -> None:
    report = check_dataset(make_folder(2), quiet=True)
    (fault,) = [one for one in report.findings if one.severity == "fault"]
    counts = [report.summary["splits"][split]["cases"] for split in ("train", "val", "test")]
    assert "received {} in train, {} in val, {} in test".format(*counts) in fault.detail
    assert sum(counts) == 2


def test_masks_as_jpeg_are_told(sound: Path) -> None:
    (sound / "masks/c3.png").unlink()
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(sound / "masks/c3.jpg")
    (finding,) = [one for one in check_dataset(sound, quiet=True).findings if one.kind == "masks with loss"]
    assert finding.severity == "warning" and "1 of 30 cases: c3" in finding.detail


def test_8_and_16_bit_mixed_is_a_fault_that_names_the_fewer(sound: Path, rng: np.random.Generator) -> None:
    deep = rng.integers(0, 65536, (40, 48), dtype=np.uint16)
    Image.fromarray(deep).save(sound / "images/c3.png")
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("fault", "8 and 16 bit mixed", None)]
    assert report.findings[0].detail.endswith("convert c3")


def test_images_of_another_depth_than_promised_are_one_fault(sound: Path, rng: np.random.Generator) -> None:
    (finding,) = check_dataset(sound, frame_dtype="uint16", quiet=True).findings
    assert (finding.severity, finding.kind) == ("fault", "unexpected bit depth")
    assert 'set frame_dtype = "uint8"' in finding.detail
    for path in (sound / "images").iterdir():
        Image.fromarray(rng.integers(0, 65536, (40, 48), dtype=np.uint16)).save(path)
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("fault", "unexpected bit depth", None)]
    assert 'set frame_dtype = "uint16"' in report.findings[0].detail
    assert check_dataset(sound, frame_dtype="uint16", quiet=True).findings == ()


@pytest.mark.parametrize(
    ("largest", "bits", "found"),
    [
        (4095, None, ("warning", "bits that no image uses")),
        (4095, 12, None),
        (4096, 12, ("fault", "brighter than promised")),
        (65535, None, None),
    ],
)
def test_the_bits_that_images_use_are_told(
    sound: Path, largest: int, bits: int | None, found: tuple[str, str] | None
) -> None:
    for path in (sound / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray((pixels * (largest / pixels.max())).round().astype(np.uint16)).save(path)
    report = check_dataset(sound, frame_dtype="uint16", bits_stored=bits, quiet=True)
    told = [
        one for one in report.findings if one.kind in ("bits that no image uses", "brighter than promised")
    ]
    assert [(one.severity, one.kind) for one in told] == ([] if found is None else [found])
    assert all(str(largest) in one.detail and "bits_stored = 12" in one.detail for one in told)


def test_what_stands_outside_the_crop_box_is_not_judged_by_its_brightness(sound: Path) -> None:
    for path in (sound / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(np.uint16) * 16
        pixels[0] = 65535
        Image.fromarray(pixels).save(path)
    for crop, faults in ((CropBox(top=1, left=0, height=39, width=48), 0), (None, 1)):
        report = check_dataset(sound, frame_dtype="uint16", bits_stored=12, crop=crop, quiet=True)
        assert sum(one.kind == "brighter than promised" for one in report.findings) == faults


@pytest.mark.parametrize(("top", "left"), [(1, 0), (0, 1)])
def test_a_crop_box_that_leaves_images_is_one_fault(sound: Path, top: int, left: int) -> None:
    assert check_dataset(sound, crop=CropBox(top=0, left=0, height=40, width=48), quiet=True).findings == ()
    report = check_dataset(sound, crop=CropBox(top=top, left=left, height=40, width=48), quiet=True)
    assert _list(report) == [("fault", "crop outside image", None)]
    assert "too small are 30 of 30 images" in report.findings[0].detail
    assert report.findings[0].detail.endswith("keep it within height 40 and width 48")


def _write_ids(root: Path) -> None:
    """Write every mask of 0 and 255 with the id of its class."""
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)


def test_declared_class_without_pixels_is_told_for_each_split(sound: Path) -> None:
    _write_ids(sound)
    findings = check_dataset(sound, num_classes=3, quiet=True).findings
    assert [finding.detail for finding in findings] == [
        f"no pixel of class 2 in {split}" for split in ("train", "val", "test")
    ]


def test_white_names_no_class_where_there_are_several(sound: Path) -> None:
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(sound / "masks/c0.png")
    report = check_dataset(sound, num_classes=3, quiet=True)
    faults = [one for one in report.findings if one.severity == "fault"]
    assert [one.case for one in faults] == sorted(f"c{index}" for index in range(1, 30))
    assert all("0, 255 alone, as where there is one class" in one.detail for one in faults)


def test_undeclared_classes_name_the_count_that_fits_every_mask(sound: Path) -> None:
    _write_ids(sound)
    for index, value in ((0, 2), (1, 4), (2, 3)):
        mask = np.zeros((40, 48), np.uint8)
        mask[:9], mask[9:18] = 1, value
        Image.fromarray(mask).save(sound / f"masks/c{index}.png")
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("fault", "undeclared classes", f"c{index}") for index in range(3)]
    assert all("`--classes 5` (" in finding.detail for finding in report.findings)
    kinds = {finding.kind for finding in check_dataset(sound, num_classes=5, quiet=True).findings}
    assert kinds <= {"class absent"}


def test_no_count_of_classes_is_offered_where_none_fits(sound: Path, rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8)).save(sound / "masks/c0.png")
    (sound / "masks/c1.png").unlink()
    Image.fromarray(rng.integers(0, 20, (40, 48), dtype=np.uint8)).save(sound / "masks/c1.jpg")
    report = check_dataset(sound, quiet=True)
    assert _list(report) == [("fault", "unusable mask", "c0"), ("fault", "unusable mask", "c1")]
    assert not any("--classes" in finding.detail for finding in report.findings)


def test_splits_are_those_of_the_given_fractions_and_salt(sound: Path) -> None:
    fractions = (0.5, 0.2, 0.3)
    summary = check_dataset(sound, fractions=fractions, salt="other", quiet=True).summary
    parts = assign_splits(find_cases(sound), fractions=fractions, salt="other")
    assert {split: facts["cases"] for split, facts in summary["splits"].items()} == {
        split: len(cases) for split, cases in parts.items()
    }
    assert summary["division"] == {"by": "hash of the group", "fractions": [0.5, 0.2, 0.3], "salt": "other"}
    _name_splits(sound, {"c1": ("b", "test"), "c2": ("c", "val")})
    named = check_dataset(sound, fractions=fractions, salt="other", quiet=True).summary
    assert named["division"] == {"by": "column split", "fractions": None, "salt": None}


def test_ignored_files_are_told(sound: Path) -> None:
    (sound / "images/scan.dcm").write_bytes(b"x")
    (finding,) = check_dataset(sound, quiet=True).findings
    assert (finding.severity, finding.kind) == ("warning", "ignored files") and "scan.dcm" in finding.detail


def test_a_set_of_faults_alone_is_reported_and_a_missing_one_refused(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks/a.png")
    report = check_dataset(tmp_path, quiet=True)
    assert _list(report) == [("fault", "mask without image", "masks/a.png")]
    assert report.summary["usable_cases"] == 0 and report.summary["class_pixel_shares"] == [None, None]
    with pytest.raises(InputError, match="no data set"):
        check_dataset(tmp_path / "nowhere")


def test_thumbnail_product_is_the_correlation(rng: np.random.Generator) -> None:
    # At thumbnail size nothing is resized, so NumPy's own correlation is the truth.
    one = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    other = (one * 0.5 + rng.integers(0, 100, (32, 32))).astype(np.uint8)
    expected = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert float(make_thumbnail(one) @ make_thumbnail(other)) == pytest.approx(expected, abs=1e-5)
    assert not make_thumbnail(np.full((50, 60), 9, np.uint8)).any()


def test_near_duplicates_are_found_over_block_borders(rng: np.random.Generator) -> None:
    thumbnails = rng.standard_normal((2100, 64), dtype=np.float32)
    thumbnails[2050] = thumbnails[3] * 2
    thumbnails[1030] = -thumbnails[4]
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    ((first, second, correlation),) = find_near_duplicates(thumbnails)
    assert (first, second) == (3, 2050) and correlation == pytest.approx(1)
