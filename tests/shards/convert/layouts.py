"""Small sets in the exact published layouts of the larger datasets, with random pictures and labels."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.shards.convert.conftest import jpeg, picture, png
from tests.shards.convert.test_dicom import TWELVE, dicom

OBSERVATIONS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
VINDR = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A CSV as pandas writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def observed(rng: np.random.Generator) -> dict[str, str]:
    """A row of CheXpert's labels; one in four is free of findings."""
    row = {name: str(rng.choice(["1.0", "0.0", "-1.0", ""])) for name in OBSERVATIONS}
    if rng.random() < 0.25:
        row = {name: "1.0" if name == "No Finding" else "" for name in OBSERVATIONS}
    return row


def write_mimic(root: Path, patients: int = 8, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    images, splits, labels = [], [], []
    for patient in range(patients):
        subject = 10000032 + 991 * patient
        for study in (50414267 + 2 * patient, 50414268 + 2 * patient):
            labels.append({"subject_id": subject, "study_id": study, **observed(rng)})
            for view in ("PA", "LATERAL") if study % 2 else ("AP",):
                name = f"{rng.integers(1 << 32):08x}-{rng.integers(1 << 32):08x}-aaaa"
                ids = {"dicom_id": name, "subject_id": subject, "study_id": study}
                place = {"ViewPosition": view, "Rows": 3056, "Columns": 2544, "StudyDate": 21800506}
                images.append({**ids, "PerformedProcedureStepDescription": "CHEST (PA AND LAT)", **place})
                splits.append({**ids, "split": ("train", "train", "validate", "test")[patient % 4]})
                put(root / f"files/p10/p{subject}/s{study}/{name}.jpg", jpeg(picture(len(images))))
    for kind, rows in (("metadata", images), ("split", splits), ("chexpert", labels[1:]), ("negbio", labels)):
        put(root / f"mimic-cxr-2.0.0-{kind}.csv.gz", table(rows))


PADCHEST_LABELS = (
    "['normal']", "['pleural effusion', ' costophrenic angle blunting']", "['cardiomegaly', 'pacemaker', '']",
    "['pericardial effusion']", "['air bronchogram', 'multiple nodules']", "['NSG tube ', 'tuberculosis sequelae']", "",
    "['laminar atelectasis', 'unchanged']",
)  # fmt: skip


def write_padchest(root: Path, patients: int = 8) -> None:
    rows: list[dict[str, object]] = []
    for number in range(2 * patients):
        patient = 839860488694292331637988235681460987 + number // 2
        name = f"2168401113669640125580829067120093271222{number:05d}_00-102-064.png"
        rows.append({
            "": number, "ImageID": name, "ImageDir": number % 3, "StudyDate_DICOM": 20140915,
            "StudyID": f"20536{number}", "PatientID": patient, "PatientBirth": ["1930.0", "", "2013.0"][number % 3],
            "PatientSex_DICOM": "FMO"[number % 3], "ViewPosition_DICOM": "",
            "Projection": ["PA", "AP_horizontal", "L", "UNK"][number % 4],
            "MethodLabel": ["Physician", "RNN_model"][number % 2], "Labels": PADCHEST_LABELS[number % 8],
        })  # fmt: skip
        put(root / str(number % 3) / name, png(picture(number).astype(np.uint16) * 257))
    put(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", table(rows))


def write_vindr(root: Path, images: int = 8, seed: int = 0) -> None:
    """As PhysioNet ships it."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    boxes: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for number in range(images):
        split = "test" if number % 4 == 3 else "train"
        name = f"{number:031x}a"
        put(root / split / f"{name}.dicom", dicom(TWELVE))
        for reader in ("R8", "R9", "R10") if split == "train" else ("",):
            found = {label: int(rng.random() < 0.2) for label in VINDR[:-1]}
            ids = {"image_id": name, "rad_id": reader} if reader else {"image_id": name}
            names = (
                found
                if split == "train"
                else {n.replace("Other diseases", "Other disease"): v for n, v in found.items()}
            )
            rows[split].append({**ids, **names, "No finding": int(not any(found.values()))})
            for label in [label for label in VINDR[:22] if found[label]] or ["No finding"]:
                corners = ("", "", "", "") if label == "No finding" else (3.0, 4.0, 13.0, 24.0)
                box = dict(zip(("x_min", "y_min", "x_max", "y_max"), corners, strict=True))
                boxes[split].append({**ids, "class_name": label, **box})
    for split in rows:
        put(root / "annotations" / f"image_labels_{split}.csv", table(rows[split]))
        put(root / "annotations" / f"annotations_{split}.csv", table(boxes[split]))


def write_vinbigdata(root: Path, images: int = 8, seed: int = 0) -> None:
    """As Kaggle ships it."""
    rng = np.random.default_rng(seed)
    names = ["Aortic enlargement", "Cardiomegaly", "Pleural thickening", "Pleural effusion", "Nodule/Mass", "ILD"]
    rows: list[dict[str, object]] = []
    for number in range(images):
        image = f"{number:031x}a"
        put(root / "train" / f"{image}.dicom", dicom(TWELVE))
        for reader in ("R8", "R9", "R10"):
            for label in [name for name in names if rng.random() < 0.3] or ["No finding"]:
                box = (3, 4, 13, 24) if label != "No finding" else ("", "", "", "")
                corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
                kind = names.index(label) if label in names else 14
                rows.append({"image_id": image, "class_name": label, "class_id": kind, "rad_id": reader, **corners})
    put(root / "train.csv", table(rows))


def write_rsna(root: Path, images: int = 9) -> None:
    rows: list[dict[str, object]] = []
    classes, mapping = [], []
    for number in range(images):
        name = f"0004cfab-14fd-4e49-80ba-{number:012x}"
        tags: dict[str, Any] = {
            "ViewPosition": ["PA", "AP"][number % 2],
            "PatientSex": "MF"[number % 2],
            "PatientAge": f"{40 + number:03d}Y",
        }
        put(root / "stage_2_train_images" / f"{name}.dcm", dicom(TWELVE, **tags))
        kind = ["Normal", "No Lung Opacity / Not Normal", "Lung Opacity"][number % 3]
        for box in (
            ((264.0, 152.0, 213.0, 379.0), (562.0, 152.0, 256.0, 453.0)) if number % 3 == 2 else (("", "", "", ""),)
        ):
            place = dict(zip(("x", "y", "width", "height"), box, strict=True))
            rows.append({"patientId": name, **place, "Target": int(number % 3 == 2)})
            classes.append({"patientId": name, "class": kind})
        mapping.append(
            {"subset_img_id": name, "img_id": f"{number // 2 + 1:08d}_{number % 2:03d}.png", "SOPInstanceUID": "1"}
        )
    put(root / "stage_2_train_labels.csv", table(rows))
    put(root / "stage_2_detailed_class_info.csv", table(classes))
    put(root / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(mapping))


def write_brax(root: Path, patients: int = 6, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for number in range(2 * patients):
        patient = f"id_{number // 2:08x}-aaaa"
        path = f"images/{patient}/Study_{number:05d}.1/Series_{number:05d}.2/image-{number:05d}.png"
        put(root / path, png(picture(number)))
        rows.append({
            "DicomPath": path.replace("images", "Anonymized_DICOMs").replace(".png", ".dcm"), "PngPath": path,
            "PatientID": patient, "PatientSex": "MF"[number % 2],
            "PatientAge": ["85 or more", "45", "50"][number % 3],
            "StudyDate": 20190101, **observed(rng), "Rows": 2000, "Columns": 1800, "Manufacturer": "x",
            "ViewPosition": ["PA", "L", "AP", ""][number % 4], "AccessionNumber": f"{number}",
        })  # fmt: skip
    put(root / "master_spreadsheet_update.csv", table(rows))


def write_chexpert_plus(root: Path, patients: int = 6, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    lines = []
    for number in range(2 * patients):
        split = "valid" if number >= 2 * patients - 2 else "train"
        side = ["frontal", "lateral"][number % 2]
        patient = f"patient{42142 + number // 2}"
        path = f"{split}/{patient}/study{number // 4 + 1}/view1_{side}.jpg"
        put(root / "PNG" / path.replace(".jpg", ".png"), png(picture(number)))
        rows.append({
            "path_to_image": path, "path_to_dcm": path.replace(".jpg", ".dcm"), "frontal_lateral": side.title(),
            "ap_pa": ["AP", ""][number % 2], "deid_patient_id": patient, "patient_report_date_order": 1,
            "report": "NARRATIVE:\nline, with a comma\nand \"quotes\"", "age": 50.0 + number,
            "sex": ["Male", "Female"][number % 2], "race": "Other", "split": split,
        })  # fmt: skip
        labels = {name: None if not value else float(value) for name, value in observed(rng).items()}
        lines.append(json.dumps({"path_to_image": path, **labels}))
    put(root / "df_chexpert_plus_240401.csv", table(rows))
    put(root / "chexbert_labels" / "impression_fixed.json", "\n".join(lines[1:]) + "\n")


def write_chexpert(root: Path, patients: int = 8, seed: int = 0) -> None:
    """CheXpert-v1.0-small: the last quarter of the patients are valid, every second study has a lateral too."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "valid": []}
    for number in range(2 * patients):
        split = "valid" if number >= 2 * patients * 3 // 4 else "train"
        study = f"{split}/patient{number // 2 + 1:05d}/study{number % 2 + 1}"
        labels = observed(rng)
        if split == "valid":
            labels = {name: "1.0" if value == "1.0" else "0.0" for name, value in labels.items()}
        for side in ("frontal", "lateral") if number % 2 else ("frontal",):
            path = f"{study}/view{1 if side == 'frontal' else 2}_{side}.jpg"
            put(root / path, jpeg(picture(number)))
            facts = {"Sex": ["Male", "Female"][number // 2 % 2], "Age": 50 + number, "Frontal/Lateral": side.title()}
            view = {"AP/PA": ["AP", "PA"][number % 2] if side == "frontal" else ""}
            rows[split].append({"Path": f"CheXpert-v1.0-small/{path}", **facts, **view, **labels})
    for split in rows:
        put(root / f"{split}.csv", table(rows[split]))


def write_dicom(root: Path, images: int = 16) -> None:
    """A folder as a PACS exports it, two images a study, and a table of labels by SOPInstanceUID."""
    rows: list[dict[str, object]] = []
    for number in range(images):
        study = number // 2
        tags: dict[str, Any] = {"PatientID": f"p{study // 2}", "StudyInstanceUID": f"1.2.{study}"}
        tags |= {"SOPInstanceUID": f"1.2.3.{number}", "ViewPosition": ["PA", "LL"][number % 2], "PatientSex": "F"}
        put(root / f"study{study}" / f"IM{number:04d}", dicom(TWELVE, **tags, PatientAge="040Y"))
        rows.append({"SOPInstanceUID": f"1.2.3.{number}", "Edema": study // 2 % 2, "Pneumonia": study % 2})
    put(root / "labels.csv", table(rows))


def write_own(root: Path, patients: int = 8) -> None:
    """A user's own pictures and table."""
    rows: list[dict[str, object]] = []
    for number in range(4 * patients):
        patient, visit = number // 4, number // 2
        put(root / "images" / f"{number:03d}.png", png(picture(number)))
        rows.append({
            "file": f"{number:03d}", "patient": f"p{patient}", "visit": f"v{visit}", "Edema": visit % 2,
            "Mass": ["", "1", "0"][visit % 3], "projection": ["PA", "LATERAL"][number % 2], "sex": "MF"[patient % 2],
            "age": 30 + patient,
        })  # fmt: skip
    put(root / "table.csv", table(rows))


def write_siim(root: Path, images: int = 8) -> None:
    rows: list[dict[str, object]] = []
    for number in range(images):
        name = f"1.2.276.0.7230010.3.1.4.8323329.{6904 + number}.1517875201.850819"
        data = dicom(TWELVE, PatientID=f"p{number // 2}", ViewPosition="PA", PatientSex="M", PatientAge="051Y")
        path = root / "dicom-images-train" / f"1.2.{number}" / f"1.3.{number}" / f"{name}.dcm"
        put(path, data.replace(b"051Y", b"51  "))
        for region in (" 557374 2 1015 8", " 1 2") if number % 4 == 1 else (" -1",):
            rows.append({"ImageId": name, " EncodedPixels": region})
    put(root / "dicom-images-test" / "1.2.9" / "1.3.9" / "1.2.276.1.9.dcm", dicom(TWELVE))
    put(root / "train-rle.csv", table(rows))


def unzip_text(path: Path) -> str:
    """The one member of a zip, or a gzipped text."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode()
