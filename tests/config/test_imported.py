"""Training files of the winner's repository -> a recipe: the settings, every key accounted for, refusals in a line."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

from pleura.config.augmentation import AugmentConfig
from pleura.config.imported.recipe import import_recipe
from pleura.config.imported.transforms import read_transforms
from pleura.config.parse import load_recipe
from pleura.config.recipe import Recipe
from pleura.errors import ConfigError, OutputError

TRIPLETS = [[top, area, bottom] for top, area in ((0.75, 1000), (0.75, 2000)) for bottom in (0.3, 0.4)]
PLATEAU = {"mode": "max", "factor": 0.1, "patience": 2, "threshold": 1e-7, "min_lr": 1e-7}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    # name: class and its arguments, losses, rates of the four parts, weight decay and lowest lr of the second stage
    "albunet_public": {"net": "AlbuNet", "loss": (1, 1, 1), "rates": (0.8, 0.4, 0.6, 0.4), "end": (5e-6, 1e-7)},
    "albunet_valid": {"net": "AlbuNet", "loss": (3, 1, 4), "rates": (0.8, 0.6, 0.4, 0.4), "end": (5e-6, 1e-7)},
    "resnet50_winner": {"net": "Resnet", "loss": (2, 1, 2), "rates": (0.8, 0.6, 0.4, 0.5), "end": (5e-6, 1e-7)},
    "seunet": {"net": "SCSEUnet", "loss": (3, 1, 4), "rates": (0.8, 0.6, 0.4, 0.5), "end": (5e-7, 1e-8)},
}
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "AlbuNet": ("models.ternausnets", {"pretrained": False}),
    "Resnet": ("models.selim_zoo.unet", {"seg_classes": 1, "backbone_arch": "resnet50"}),
    "SCSEUnet": ("models.selim_zoo.unet", {"seg_classes": 1}),
}


def training_file(name: str, part: int) -> dict[str, Any]:
    """A training file as it was published: part 0, 1, 2, or 3 for the second stage."""
    experiment = EXPERIMENTS[name]
    module, given = NETS[experiment["net"]]
    second = part == 3
    decay, lowest = experiment["end"] if second else (5e-6, 1e-7)
    scaled = experiment["net"] == "Resnet" and not second
    cosine = {"T_max": 8, "eta_min": lowest}
    return {
        "PIPELINE_NAME": name,
        "DATA_DIRECTORY": "../input/dataset1024",
        "LOGGER_DIR": "log",
        "SEED": 42,
        "DEVICE": "cuda",
        "DEVICE_LIST": [0],
        "WORKERS": 12,
        "MODEL": {
            "PRETRAINED": {
                "PIPELINE_PATH": f"experiments/{name}",
                "CHECKPOINTS_FOLDER": "checkpoints",
                "PIPELINE_NAME": name,
            },
            "FREEZE": False,
            "PY": module,
            "CLASS": experiment["net"],
            "ARGS": dict(given),
        },
        "FOLD": {"NUMBER": 5, "USEFOLDS": [0, 1, 2, 3, 4], "FILE": "folds/train_folds_5.csv"},
        "USE_SAMPLER": True,
        "NON_EMPTY_MASK_PROBA": experiment["rates"][part],
        "TRAIN_TRANSFORMS": f"transforms/train_transforms_complex_1024{'' if scaled else '_old'}.json",
        "VALID_TRANSFORMS": f"transforms/valid_transforms_1024{'' if scaled else '_old'}.json",
        "CRITERION": {
            "PY": "Losses",
            "CLASS": "ComboLoss",
            "ARGS": {"weights": dict(zip(("bce", "dice", "focal"), experiment["loss"], strict=True))},
        },
        "OPTIMIZER": {"CLASS": "Adam", "ARGS": {"lr": 1e-5 if part else 1e-4, "weight_decay": decay}},
        "SCHEDULER": {
            "CLASS": "CosineAnnealingLR" if part else "ReduceLROnPlateau",
            "ARGS": cosine if part else dict(PLATEAU),
        },
        "BATCH_SIZE": 2,
        "GRADIENT_ACCUMULATION_STEPS": 1,
        "GRADIENT_CLIPPING": 0.1,
        "EPOCHES": 40 if second else 50,
        "EARLY_STOPPING": 12 if part else 10,
        "VALIDATION_FREQUENCY": 1,
        "CHECKPOINTS": {"FULL_FOLDER": "checkpoints", "BEST_FOLDER": "checkpoints", "TOPK": 3 if part else 5},
        "MASK_BINARIZER": {
            "PY": "MaskBinarizers",
            "CLASS": "TripletMaskBinarization",
            "ARGS": {"triplets": copy.deepcopy(TRIPLETS)},
        },
        "EVALUATION_METRIC": {"PY": "Losses", "CLASS": "dice_metric", "ARGS": {"per_image": True}},
    }


def step(kind: str, p: float = 0.5, **given: Any) -> dict[str, Any]:
    where = "core.composition" if kind == "OneOf" else "augmentations.transforms"
    return {"__class_fullname__": f"albumentations.{where}.{kind}", "always_apply": False, "p": p, **given}


NORMALISE = step("Normalize", 1.0, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], max_pixel_value=255.0)


def published_steps(size_px: int = 1024) -> list[dict[str, Any]]:
    """The published augmentation, as albumentations 0.3 writes it."""
    brightness, contrast = (step(kind, limit=[-0.2, 0.2]) for kind in ("RandomBrightness", "RandomContrast"))
    gamma = step("RandomGamma", gamma_limit=[80, 120])
    warps = [
        step("ElasticTransform", alpha=120, sigma=6.0, alpha_affine=3.5999999999999996, border_mode=4),
        step("GridDistortion", num_steps=5, distort_limit=[-0.3, 0.3], border_mode=4),
        step("OpticalDistortion", distort_limit=[-2, 2], shift_limit=[-0.5, 0.5], border_mode=4),
    ]
    scale = [-0.09999999999999998, 0.10000000000000009]
    return [
        step("HorizontalFlip"),
        step("OneOf", 0.3, transforms=[contrast, gamma, brightness]),
        step("OneOf", 0.3, transforms=warps),
        step(
            "ShiftScaleRotate",
            shift_limit=[-0.0625, 0.0625],
            scale_limit=scale,
            rotate_limit=[-45, 45],
            border_mode=4,
        ),
        step("Resize", 1, height=size_px, width=size_px) | {"always_apply": True},
    ]


def write_transforms(path: Path, steps: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    compose = {"__class_fullname__": "albumentations.core.composition.Compose", "p": 1.0, "transforms": steps}
    path.write_text(json.dumps({"__version__": "0.3.1", "transform": compose}), encoding="utf-8")
    return path


def write_parts(folder: Path, name: str, **changes: Any) -> list[Path]:
    """The four files of an experiment, in the repository's places."""
    paths = []
    for part, stem in enumerate(("part0", "part1", "part2", "2nd_stage")):
        path = folder / "experiments" / name / f"train_config_{stem}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(training_file(name, part) | changes), encoding="utf-8")
        paths.append(path)
    return paths


def told(lines: list[str], key: str) -> str:
    return "\n".join(line for line in lines if line.startswith(key))


def written(tmp_path: Path, document: Any, name: str = "train_config_part0.yaml") -> Path:
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


def imported(tmp_path: Path, change: Callable[[dict[str, Any]], Any], name: str = "albunet_valid") -> Recipe:
    document = training_file(name, 0)
    change(document)
    import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_the_winners_files_become_the_recipe_that_comes_with_pleura(name: str, tmp_path: Path) -> None:
    import_recipe(write_parts(tmp_path, name), tmp_path / "recipe.yaml")
    made, ours = load_recipe(tmp_path / "recipe.yaml"), load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert made.stages == ours.stages
    assert made.seed == ours.seed
    # What the repository's AlbuNet starts from is not in its files, and ours say ImageNet.
    assert made.model.model_copy(update={"pretrained": True}) == ours.model


def test_an_imported_recipe_has_its_source_and_what_differs(tmp_path: Path) -> None:
    lines = import_recipe(write_parts(tmp_path, "seunet"), tmp_path / "recipe.yaml")
    made = load_recipe(tmp_path / "recipe.yaml")
    assert made.name == "seunet"
    assert "train_config_part0.yaml" in made.source
    assert "sneddy/pneumothorax-segmentation" in made.source
    assert [stage.name for stage in made.stages] == ["part0", "part1", "part2", "second_stage"]
    head = (tmp_path / "recipe.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    assert all(f"#   {line}" in head for line in lines)


def leaves(tree: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        inner = isinstance(value, dict) and key not in ("weights",)
        found += leaves(value, f"{path}{key}.") if inner else [f"{path}{key}"]
    return found


TAKEN_AS_THEY_ARE = {
    "PIPELINE_NAME",
    "MODEL.FREEZE",
    "MODEL.PY",
    "MODEL.CLASS",
    "USE_SAMPLER",
    "OPTIMIZER.CLASS",
    "OPTIMIZER.ARGS.lr",
    "OPTIMIZER.ARGS.weight_decay",
    "BATCH_SIZE",
    "GRADIENT_ACCUMULATION_STEPS",
    "GRADIENT_CLIPPING",
    "EPOCHES",
    "VALIDATION_FREQUENCY",
    "EVALUATION_METRIC",
    "MODEL.ARGS.seg_classes",
    "SCHEDULER.CLASS",
    "SCHEDULER.ARGS.mode",
    "SCHEDULER.ARGS.factor",
    "SCHEDULER.ARGS.patience",
    "SCHEDULER.ARGS.min_lr",
}


@pytest.mark.parametrize("name", ["albunet_valid", "resnet50_winner"])
def test_every_key_is_taken_over_as_it_is_or_listed(name: str, tmp_path: Path) -> None:
    document = training_file(name, 0)
    lines = import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")
    said = {line.split(":")[0] for line in lines}
    unsaid = {
        key
        for key in leaves(document)
        if not any(key == name or key.startswith(f"{name}.") for name in said | TAKEN_AS_THEY_ARE)
    }
    assert unsaid == ({"MODEL.ARGS.backbone_arch"} if name == "resnet50_winner" else set())


def key_paths(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return []
    return [found for key, value in tree.items() for found in ((*path, key), *key_paths(value, (*path, key)))]


@pytest.mark.parametrize("path", [(), *(path for path in key_paths(training_file("seunet", 0)) if path[-1].isupper())])
def test_an_unknown_key_beside_any_other_is_refused_by_its_dotted_name(path: tuple[str, ...], tmp_path: Path) -> None:
    document = training_file("seunet", 0)
    place = document
    for key in path:
        place = place[key]
        if not isinstance(place, dict):
            return
    place["SURPRISE"] = 1
    dotted = ".".join((*path, "SURPRISE"))
    if path == ("OPTIMIZER", "ARGS"):
        assert f"{dotted}: left out" in told(import_recipe([written(tmp_path, document)], tmp_path / "a.yaml"), dotted)
        return
    with pytest.raises(ConfigError, match=rf"train_config_part0\.yaml: {dotted}: unknown"):
        import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")


OPTIONAL = {"LOGGER_DIR", "DATA_DIRECTORY", "DEVICE", "DEVICE_LIST", "WORKERS", "VALIDATION_FREQUENCY"}
OPTIONAL |= {"GRADIENT_ACCUMULATION_STEPS"}


@pytest.mark.parametrize("key", sorted(set(training_file("seunet", 0)) - OPTIONAL - {"NON_EMPTY_MASK_PROBA"}))
def test_a_missing_key_is_refused_by_name(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train_config_part0\.yaml: {key}: is missing"):
        imported(tmp_path, lambda document: document.pop(key))
    assert not (tmp_path / "recipe.yaml").exists()


def test_an_absent_share_of_positives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="positive_rate"):
        imported(tmp_path, lambda document: document.pop("NON_EMPTY_MASK_PROBA"))


def test_a_misspelt_key_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EPOCHES: is missing; is it written as EPOCHS"):
        imported(tmp_path, lambda document: document.update(EPOCHS=document.pop("EPOCHES")))


def put(*where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place = document
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("MODEL", "CLASS", value="UNet16"), "models.ternausnets.UNet16 is not built; known are"),
        (put("MODEL", "PY", value="os"), "os.AlbuNet is not built"),
        (put("MODEL", "FREEZE", value=True), "only validates there"),
        (put("MODEL", "ARGS", "is_deconv", value=True), "only false can be taken over"),
        (put("MODEL", "ARGS", "num_filters", value=16), "only 32"),
        (put("MODEL", value=["AlbuNet"]), "MODEL is no mapping"),
        (put("SCHEDULER", "CLASS", value="CosineAnnealingWarmRestarts"), "use ReduceLROnPlateau or"),
        (put("SCHEDULER", "ARGS", "mode", value="min"), "must be max"),
        (put("SCHEDULER", "ARGS", "cooldown", value=3), "SCHEDULER.ARGS.cooldown: unknown"),
        (put("OPTIMIZER", "CLASS", value="RAdam"), "use Adam, AdamW or SGD"),
        (put("OPTIMIZER", "ARGS", "lr", value="fast"), r"OPTIMIZER.ARGS.lr: must be a number \(given: 'fast'\)"),
        (put("OPTIMIZER", "ARGS", "lr", value=float("inf")), "must be a number"),
        (put("BATCH_SIZE", value=True), "BATCH_SIZE: must be a number"),
        (put("BATCH_SIZE", value=2.5), "BATCH_SIZE: must be a whole number"),
        (put("BATCH_SIZE", value=0), "batch_size: .*greater than or equal to 1"),
        (put("USE_SAMPLER", value="yes please"), "must be true or false"),
        (put("NON_EMPTY_MASK_PROBA", value=1.5), "positive_rate"),
        (put("CRITERION", "CLASS", value="DiceLoss"), "only Losses.ComboLoss"),
        (put("CRITERION", "ARGS", "weights", "lovasz_sigmoid", value=1), "lovasz, the symmetric hinge, is"),
        (put("CRITERION", "ARGS", "weights", "iou", value=1), "CRITERION.ARGS.weights.iou: unknown"),
        (put("CRITERION", "ARGS", "weights", value={"bce": 0}), "all weights are 0"),
        (put("MASK_BINARIZER", "CLASS", value="DupletMaskBinarization"), "use TripletMaskBinarization"),
        (put("EVALUATION_METRIC", "CLASS", value="jaccard"), "only dice_metric"),
        (put("TRAIN_TRANSFORMS", value=3), "TRAIN_TRANSFORMS: must be text"),
    ],
)
def test_a_key_without_a_counterpart_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        imported(tmp_path, change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SEED: [1", "is not plain YAML"),
        ("SEED: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
        ("SEED: !!python/name:os.system", "could not determine a constructor for the tag"),
        ("- 1\n- 2", "the file is no mapping"),
        ("", "the file is no mapping"),
        ("SEED: 2019-99-99", "is not plain YAML"),
        ("[" * 1200, "is not plain YAML"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        import_recipe([written(tmp_path, text)], tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("nowhere.yaml", "bytes.yaml"):
        with pytest.raises(ConfigError, match=rf"{name}: cannot be read"):
            import_recipe([tmp_path / name], tmp_path / "recipe.yaml")


def test_a_recipe_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    out = written(tmp_path, "precious", "recipe.yaml")
    with pytest.raises(OutputError, match="in the way"):
        import_recipe([written(tmp_path, training_file("seunet", 0))], out)
    assert out.read_text(encoding="utf-8") == "precious"


def test_two_nets_do_not_go_into_one_recipe(tmp_path: Path) -> None:
    files = [write_parts(tmp_path, name)[0] for name in ("seunet", "resnet50_winner")]
    with pytest.raises(ConfigError, match=r"MODEL is another net than that of train_config_part0\.yaml"):
        import_recipe(files, tmp_path / "recipe.yaml")


def test_stages_of_files_with_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(written(tmp_path / folder, training_file("seunet", 0), "My Config!.yaml"))
    import_recipe(files, tmp_path / "recipe.yaml")
    assert [stage.name for stage in load_recipe(tmp_path / "recipe.yaml").stages] == ["my_config", "my_config-2"]


def stages_and_order(tmp_path: Path, files: dict[str, dict[str, Any]]) -> tuple[list[str], str]:
    paths = [written(tmp_path, document, name) for name, document in files.items()]
    lines = import_recipe(paths, tmp_path / "recipe.yaml")
    sources = load_recipe(tmp_path / "recipe.yaml").source.split(", training files")[0].split(", ")
    return sources, lines[0]


def test_files_are_ordered_by_their_numbers_and_the_second_stage_comes_last(tmp_path: Path) -> None:
    names = ["train_config_2nd_stage", "train_config_part10", "train_config_part2", "train_config_part0"]
    given = {f"{name}.yaml": training_file("seunet", 3 if "2nd" in name else 1) for name in names}
    sources, line = stages_and_order(tmp_path, given)
    assert sources == [f"train_config_{name}.yaml" for name in ("part0", "part2", "part10", "2nd_stage")]
    assert line == f"order: {', '.join(sources)}, by the numbers in their names"


@pytest.mark.parametrize("by", ["folder", "pipeline"])
def test_files_are_ordered_by_the_checkpoints_that_they_start_from(tmp_path: Path, by: str) -> None:
    given: dict[str, dict[str, Any]] = {}
    for name, before in (("part0.yaml", "b"), ("zeta.yaml", "start"), ("alpha.yaml", "a")):
        document = training_file("seunet", 1)
        own = {"part0.yaml": "c", "zeta.yaml": "a", "alpha.yaml": "b"}[name]
        if by == "folder":
            document["CHECKPOINTS"] |= {"FULL_FOLDER": f"full-{own}", "BEST_FOLDER": own}
            document["MODEL"]["PRETRAINED"]["CHECKPOINTS_FOLDER"] = f"{before}/"
        else:
            document["PIPELINE_NAME"] = own
            document["MODEL"]["PRETRAINED"]["PIPELINE_NAME"] = before
        given[name] = document
    sources, line = stages_and_order(tmp_path, given)
    assert sources == ["zeta.yaml", "alpha.yaml", "part0.yaml"]
    assert line.endswith("by the checkpoints that they start from")


def test_files_without_numbers_keep_their_order(tmp_path: Path) -> None:
    given = {name: training_file("seunet", 1) for name in ("warm.yaml", "fine.yaml")}
    assert stages_and_order(tmp_path, given) == (
        ["warm.yaml", "fine.yaml"],
        "order: warm.yaml, fine.yaml, as they were given",
    )


def test_files_that_start_from_one_another_are_refused(tmp_path: Path) -> None:
    paths = []
    for own, before in (("a", "b"), ("b", "a")):
        document = training_file("seunet", 1)
        document["CHECKPOINTS"] |= {"FULL_FOLDER": own, "BEST_FOLDER": own}
        document["MODEL"]["PRETRAINED"]["CHECKPOINTS_FOLDER"] = before
        paths.append(written(tmp_path, document, f"{own}.yaml"))
    with pytest.raises(ConfigError, match=r"^a\.yaml, b\.yaml: each starts from a checkpoint of another"):
        import_recipe(paths, tmp_path / "recipe.yaml")


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    assert imported(tmp_path, put("OPTIMIZER", "ARGS", "lr", value="3e-4")).stages[0].lr == 3e-4


def test_every_case_comes_once_without_the_sampler(tmp_path: Path) -> None:
    assert imported(tmp_path, put("USE_SAMPLER", value=False)).stages[0].positive_rate is None


def test_the_slip_in_a_published_file_is_understood_and_listed(tmp_path: Path) -> None:
    document = training_file("albunet_public", 3)
    document["sUSE_SAMPLER"] = document.pop("USE_SAMPLER")
    lines = import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")
    assert "slip" in told(lines, "sUSE_SAMPLER")
    assert load_recipe(tmp_path / "recipe.yaml").stages[0].positive_rate == 0.4


def test_older_files_with_evaluation_are_understood(tmp_path: Path) -> None:
    document = training_file("seunet", 1)
    del document["MASK_BINARIZER"], document["EVALUATION_METRIC"]
    document["EVALUATION"] = {"SEARCH_PAIRS": [[0.75, 1000], [0.75, 2000]], "BOT_THRESHOLDS": [0.3, 0.4]}
    lines = import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")
    assert "exact best triplet" in told(lines, "EVALUATION")


def test_validating_every_third_epoch_makes_patience_and_period_three_times_as_long(tmp_path: Path) -> None:
    assert imported(tmp_path, put("VALIDATION_FREQUENCY", value=3)).stages[0].schedule.patience == 6


def test_a_frozen_encoder_stays_frozen_for_all_epochs(tmp_path: Path) -> None:
    made = imported(tmp_path, put("MODEL", "ARGS", "freeze_encoder", value=True))
    assert made.stages[0].freeze_encoder_epochs == 50


@pytest.mark.parametrize(
    ("name", "backbone", "encoder", "widths", "last"),
    [
        ("DensenetUnet", None, "densenet121", [256, 256, 128, 64], 64),
        ("DensenetUnet", "densenet161_fatter", "densenet161", [256, 256, 128, 128], 128),
        ("Resnet", "resnet34", "resnet34", [256, 256, 128, 64], 64),
        ("SEUnet", None, "legacy_senet154", [384, 256, 128, 64], 32),
        ("SEUnet", "seresnext101", "legacy_seresnext101_32x4d", [384, 256, 128, 64], 64),
    ],
)
def test_a_backbone_is_timms_with_the_repositorys_widths(
    name: str, backbone: str | None, encoder: str, widths: list[int], last: int, tmp_path: Path
) -> None:
    given = {"seg_classes": 1} | ({"backbone_arch": backbone} if backbone else {})
    model = {"PY": "models.selim_zoo.unet", "CLASS": name, "ARGS": given}
    made = imported(tmp_path, put("MODEL", value=model)).model
    assert (made.encoder, made.decoder_widths, made.last_width, made.bottleneck) == (encoder, widths, last, "plain")
    assert made.pretrained is True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seg_classes": 1}, "backbone_arch: is missing"),
        ({"seg_classes": 1, "backbone_arch": "vgg16"}, "vgg16 is not known; known are resnet18"),
        ({"seg_classes": 1, "backbone_arch": "densenet121"}, "does not fit into Resnet"),
        ({"seg_classes": 4, "backbone_arch": "resnet34"}, "seg_classes: only 1"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = {"PY": "models.selim_zoo.unet", "CLASS": "Resnet", "ARGS": given}
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, put("MODEL", value=model))


# --- transforms


def test_the_published_transforms_are_our_defaults(tmp_path: Path) -> None:
    found = read_transforms(write_transforms(tmp_path / "t.json", published_steps()))
    assert (found.augment, found.size_px, found.input_scaling) == ({}, 1024, "none")
    assert any("101" in line for line in found.differs)
    assert any("alpha_affine" in line for line in found.differs)


def test_transforms_beside_the_repositorys_folders_are_read(tmp_path: Path) -> None:
    files = write_parts(tmp_path, "albunet_valid")
    steps = published_steps(512)
    steps[0]["p"] = 0.25
    write_transforms(tmp_path / "transforms" / "train_transforms_complex_1024_old.json", [*steps, NORMALISE])
    lines = import_recipe(files, tmp_path / "recipe.yaml")
    made = load_recipe(tmp_path / "recipe.yaml")
    assert {(stage.size_px, stage.augment.horizontal_flip) for stage in made.stages} == {(512, 0.25)}
    assert made.model.input_scaling == "encoder"
    assert "not found" not in told(lines, "TRAIN_TRANSFORMS")


def test_published_transforms_replace_missing_ones_and_are_listed(tmp_path: Path) -> None:
    document = training_file("albunet_valid", 0)
    document["TRAIN_TRANSFORMS"] = "transforms/train_transforms_complex_512_old.json"
    lines = import_recipe([written(tmp_path, document)], tmp_path / "recipe.yaml")
    assert "was not found" in told(lines, "TRAIN_TRANSFORMS")
    stage = load_recipe(tmp_path / "recipe.yaml").stages[0]
    assert (stage.size_px, stage.augment) == (512, AugmentConfig())


def test_stages_that_differ_in_transforms_keep_their_own_and_a_scaling_that_differs_is_listed(tmp_path: Path) -> None:
    files = write_parts(tmp_path, "resnet50_winner")
    write_transforms(tmp_path / "transforms" / "train_transforms_complex_1024.json", [*published_steps(), NORMALISE])
    write_transforms(tmp_path / "transforms" / "train_transforms_complex_1024_old.json", published_steps()[1:])
    lines = import_recipe(files, tmp_path / "recipe.yaml")
    made = load_recipe(tmp_path / "recipe.yaml")
    assert [stage.augment.horizontal_flip for stage in made.stages] == [0.5, 0.5, 0.5, 0.0]
    assert made.model.input_scaling == "encoder"
    assert "scales its input as 'none', unlike" in told(lines, "TRAIN_TRANSFORMS (second_stage)")


def test_transforms_that_a_file_does_not_name_are_not_done(tmp_path: Path) -> None:
    found = read_transforms(write_transforms(tmp_path / "t.json", [step("Resize", height=256, width=256)]))
    settings = AugmentConfig(**found.augment)
    assert (settings.horizontal_flip, settings.affine_probability) == (0, 0)
    assert (settings.distortion_probability, settings.intensity_probability) == (0, 0)


def test_one_transform_of_three_is_drawn_as_often_as_the_file_says(tmp_path: Path) -> None:
    steps = [step("RandomGamma", 0.2, gamma_limit=[90, 110]), step("GridDistortion", 0.5, distort_limit=0.1)]
    found = read_transforms(write_transforms(tmp_path / "t.json", steps))
    # Ours draws one of three with equal chances, and the other two change nothing.
    assert found.augment["intensity_probability"] == pytest.approx(0.6)
    assert (found.augment["contrast"], found.augment["brightness"], found.augment["gamma"]) == (0, 0, [0.9, 1.1])
    assert (found.augment["distortion_probability"], found.augment["grid_limit"]) == (1.0, 0.1)
    assert any("p 0.5 come in 33%" in line for line in found.differs)


def test_transforms_without_a_counterpart_are_listed(tmp_path: Path) -> None:
    steps = [
        step("CLAHE"),
        step("OneOf", transforms=[step("RandomGamma", gamma_limit=[80, 120]), step("Blur")]),
        step("Normalize", mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2]),
        step("ShiftScaleRotate", shift_limit=[0, 0.1], scale_limit=0.2, rotate_limit=20, border_mode=0),
    ]
    found = read_transforms(write_transforms(tmp_path / "t.json", steps))
    for phrase in ("CLAHE is left out", "RandomGamma, Blur is left out", "mean [0.5", "0 to 0.1 is taken both ways"):
        assert any(phrase in line for line in found.differs), phrase
    assert found.augment["border"] == "zeros"
    assert (found.augment["rotate_degrees"], found.augment["scale"]) == (20, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as albumentations' JSON"),
        ("[]", "the file is no mapping"),
        ('{"transform": {"transforms": 3}}', "transform.transforms: must be a list"),
        ('{"transform": {"transforms": [{}]}}', "transforms.0.__class_fullname__: is missing"),
        ('{"transform": {"transforms": [{"__class_fullname__": "Resize", "height": 8, "width": 9}]}}', "not square"),
        ('{"transform": {"transforms": [{"__class_fullname__": "HorizontalFlip", "p": 7}]}}', "a probability"),
        ('{"transform": {"transforms": [{"__class_fullname__": "RandomGamma", "gamma_limit": [1]}]}}', "one number or"),
        ('{"transform": {"transforms": [{"__class_fullname__": "Normalize", "mean": "x"}]}}', "must be numbers"),
    ],
)
def test_a_damaged_file_of_transforms_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text, "t.json")
    with pytest.raises(ConfigError, match=message) as caught:
        read_transforms(path)
    assert "\n" not in str(caught.value)
    assert "t.json" in str(caught.value)


def test_the_command_prints_the_list_and_overwrites_nothing(pleura: Callable[..., Any], tmp_path: Path) -> None:
    files = write_parts(tmp_path, "seunet")
    done = pleura("import-recipe", *files, "--out", tmp_path / "seunet.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FOLD.FILE: folds are the dataset's" in done.stdout
    assert load_recipe(tmp_path / "seunet.yaml").name == "seunet"
    again = pleura("import-recipe", *files, "--out", tmp_path / "seunet.yaml")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1


def test_import_recipe_imports_no_net() -> None:
    code = "import sys, pleura.config.imported.recipe; sys.exit(' '.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "")
