"""What is right for each case: its tries, each with a regular expression of all that it gives."""

from __future__ import annotations

from typing import NamedTuple

from tests.cases import processes, tries
from tests.cases.tries import Action

# The place of the real archive in arguments of a make.py: it lies in data/ beside the cases.
ARCHIVE = "kermany-as-montgomery.zip"
# Cases whose data another case's script reads.
NEEDED = {"35-own-aws-config": "33-three-films"}
# Calls of a case's make.py, where it is not called once without arguments.
CALLS: dict[str, list[list[str]]] = {
    "02-jsrt-four-grays": [[], [".40"]],
    "15-monochrome1": [[ARCHIVE, "40"]],
    "16-burned-in-marker": [[ARCHIVE]],
}
ONE_STEP = ("--size", "32", "--batch-size", "1", "--learning-rate", "1")
SAME = "(\\d+) of \\1 the same"
SEVERAL = "exit 65: .*several values \\(24\\).*the masks have the values {}: .* in --mask-values.*"
OTHER_MASKS = "; passed over: masks of something else than lungs 24"
# The files of cases 17 and 18 that are JPEGs, and how far these may be from the film.
LOSSY = {"jpeg\\.tif": tries.LOSS_75, "[dh]\\d\\..*": tries.LOSS_95}
NO_CREDENTIALS = "exit 77: .*there are no S3 credentials .*"
DISK_FULL = "exit 69: .*no space on the disk.*"
NO_S3 = "exit 2: .*no S3 answers there: check AWS_ENDPOINT_URL.*"
NOT_TRUSTED = "exit 77: .*not trusted .*AWS_CA_BUNDLE"
UNREACHED = "exit 69: .*S3 does not answer .*: check AWS_ENDPOINT_URL.*"
TOKEN = "exit 77: .*[Kk]aggle.*token.*"


class Try(NamedTuple):
    name: str
    expected: str
    action: Action


class Script(NamedTuple):
    """try.sh: its arguments after the checkout, and what each of its tries should end with.

    has_s3: whether it runs with the variables of an S3 that answers.
    """

    arguments: list[str]
    expected: dict[str, str]
    has_s3: bool = False


TRIES: dict[str, list[Try]] = {
    "01-label-mask-1-2": [
        Try("as they are", SEVERAL.format("0, 1, 2"), tries.records()),
        Try("--mask-values 1,2", "24 records", tries.records(mask_values="1,2")),
    ],
    "02-jsrt-four-grays": [
        Try("as they are", SEVERAL.format("0, 85, 170, 255"), tries.records()),
        Try("children", SEVERAL.format("0, 85, 170, 255"), tries.records("data-child")),
        Try("--mask-values 255", "24 records", tries.records(mask_values="255")),
        Try(
            "children, --mask-values 255",
            "24 records",
            tries.records("data-child", mask_values="255"),
        ),
    ],
    "03-colored-organs": [
        Try("as they are", SEVERAL.format("#000000, #00ff00, #ff0000"), tries.records()),
        Try("--mask-values #ff0000", "24 records", tries.records(mask_values="#ff0000")),
    ],
    "05-inverted-masks": [
        Try("as they are", "exit 65: .*inverted \\(24\\).*--mask-values 0.*", tries.records()),
        Try("--mask-values 0", "24 records", tries.records(mask_values="0")),
    ],
    "06-covid-qu-ex": [
        Try("pairs", f"48 pairs of 48 patients{OTHER_MASKS}", tries.pairs()),
        Try("masks that are used", "masks of lung masks", tries.folders_of_masks()),
        Try("preprocess", "24 records, repeated 24", tries.records()),
    ],
    "07-jsrt-scr-gif": [
        Try("pairs", f"24 pairs of 24 patients, masks left and right{OTHER_MASKS}", tries.pairs()),
        Try("preprocess", "24 records", tries.records()),
    ],
    "08-jsrt-scr-png": [
        Try("pairs", f"24 pairs of 24 patients, masks left and right{OTHER_MASKS}", tries.pairs()),
        Try("preprocess", "24 records", tries.records()),
    ],
    "09-jsrt-segmentation01": [Try("pairs", "24 pairs of 24 patients", tries.pairs())],
    "10-qata-mask-prefix": [
        Try(
            "refused",
            "exit 65: no film has a lung mask .*Ground-truths/ \\(18 \\.png\\).* "
            "\\(0 objects written\\)",
            tries.refused(),
        )
    ],
    "11-covid-radiography": [
        Try("pairs", "40 pairs of 40 patients; passed over: text and metadata 5", tries.pairs()),
    ],
    "12-affixes": [
        Try(affix, "6 pairs of 6 patients", tries.pairs(f"data/{affix}"))
        for affix in ("-mask", "_seg", "_label", "msk", "mask_", "_lung")
    ],
    "13-nas-folders": [
        Try("masks", "6 masks of 6 films; passed over: system files 24", tries.masks())
    ],
    "14-csv-formula": [
        Try("masks", "4 masks of 4 films", tries.masks()),
        Try("predictions.csv", "4 lines, 0 formulas", tries.formulas()),
    ],
    "15-monochrome1": [
        # Whether an inverted film is for review is a matter of the network, which is hardly
        # trained here.
        Try("inverted are masked", "40 masks of 40 films", tries.masks("data/inverted")),
        Try("upright are masked", "40 masks of 40 films", tries.masks("data/upright")),
    ],
    "16-burned-in-marker": [
        Try(
            "marked",
            SAME,
            tries.same_as("data/marked", "data/plain", corner=0.1),
        ),
        Try(
            "one pixel",
            SAME,
            tries.same_as("data/onepixel", "data/plain", corner=0.1),
        ),
        Try(
            "in the upper 12 bits",
            SAME,
            tries.same_as("data/shifted", "data/plain", levels=1),
        ),
    ],
    "17-other-formats": [
        Try("masks", "54 masks of 54 films", tries.masks()),
        *(
            Try(
                f"film {number}",
                "9 of 9 are the film of 160x128",
                tries.decoded_as(f"data/a{number}.bmp", f"?{number}.*", LOSSY),
            )
            for number in range(1, 7)
        ),
    ],
    "18-tiff-traps": [
        Try(
            "decoded",
            "8 of 8 are the film of 320x256",
            tries.decoded_as("data/truth.png", "*.tif", LOSSY),
        )
    ],
    "19-archives": [
        Try("folder", "24 pairs of 24 patients", tries.pairs("data/set")),
        Try("zip", "24 pairs of 24 patients", tries.pairs("data/inner.zip")),
        Try("self-extracting zip", "24 pairs of 24 patients", tries.pairs("data/sfx.zip")),
        Try(
            "zip in a zip",
            "exit 65: .* holds no images; its member 'dataset/inner\\.zip' is a zip: unpack .*",
            tries.pairs("data/outer.zip"),
        ),
        Try(
            "part of a split zip",
            "exit 65: .* lies before the file's start: .*if the zip was split, join the parts .*",
            tries.pairs("data/split.zip"),
        ),
        *(
            Try(kind, f"exit 65: .* is not a zip but a {kind} archive: .*", tries.pairs(source))
            for kind, source in (
                ("tar.gz", "data/set.tar.gz"),
                ("tar", "data/set.tar"),
                ("RAR", "data/rar.zip"),
                ("7z", "data/seven.7z"),
            )
        ),
    ],
    "20-shift-jis-zip": [
        Try("pairs", "24 pairs of 24 patients", tries.pairs("data/sjis.zip")),
        Try("names", "24 names with 患者表", tries.names("data/sjis.zip", "患者表")),
    ],
    "25-odd-names": [
        Try("masks", "29 masks of 29 films", tries.masks()),
        Try("names", r"names back\\slash\.png", tries.masked_names("data", r"back\slash.png")),
    ],
    "26-out-inside-films": [
        Try(
            "masks, twice",
            "4 masks of 4 films, then 4 masks of 4 films",
            processes.masks_twice("data", "data/out"),
        )
    ],
    "27-tiny-films": [Try("masks", "9 masks of 9 films", tries.masks())],
    "28-films-dropped": [
        Try("b: also in images/", "6 masks of 6 films", tries.masks("data/b")),
        Try("c: masks/", "6 masks of 6 films; passed over: masks 1", tries.masks("data/c")),
    ],
    "29-csv-of-excel": [
        Try(
            name,
            "24 pairs of 12 patients",
            tries.pairs("data/set", patients=f"data/{name}.csv"),
        )
        for name in (
            *("plain", "bom", "semicolon", "unicode-text", "tab", "capitals", "spaces"),
            *("backslashes", "bare-names", "old-mac"),
        )
    ],
    "30-nas-in-training": [
        Try("pairs", "24 pairs of 24 patients; passed over: system files 96", tries.pairs()),
    ],
    "31-exif-square": [
        Try("preprocess", "exit 65: .*orientation \\(24\\).*", tries.records()),
        Try(
            "--max-quarantined 1",
            "exit 65: the split train is empty.*",
            tries.records(max_quarantined=1.0),
        ),
    ],
    "32-unicode-path-zip": [
        Try(
            "--patients",
            "24 pairs of 24 patients",
            tries.pairs("data/names.zip", patients="data/patients.csv"),
        ),
    ],
    "33-three-films": [
        Try("two processes", "trained, 1 epochs", tries.training(processes=2)),
        Try("the whole chain", "exit 0", processes.run(*ONE_STEP, source="data")),
    ],
    "37-torchrun-variables": [
        Try(
            "WORLD_SIZE=2",
            "exit 0",
            processes.run(
                environment={
                    "WORLD_SIZE": "2",
                    "RANK": "0",
                    "LOCAL_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": "29511",
                }
            ),
        ),
        Try("WORLD_SIZE=", "exit 0", processes.run(environment={"WORLD_SIZE": ""})),
        Try("RANK=1, RESULT_URI", "exit 0, result written", processes.result_of_rank(1)),
    ],
    "38-disk-full": [
        Try(
            "filled by the run",
            DISK_FULL,
            processes.full_disk(36, ARCHIVE),
        ),
        Try(
            "full at the start",
            DISK_FULL,
            processes.full_disk(36, ARCHIVE, filled=True),
        ),
    ],
    "39-sockets": [Try("jobs s3", "exit 0, left: nothing", processes.litter())],
}
SCRIPTS: dict[str, Script] = {
    "21-s3-answers": Script(
        [
            *("glacier", "requester-pays", "kms", "quota", "minio-full", "skew", "moved"),
            *("toomany", "readonly"),
        ],
        {
            "glacier": "exit 65: .*InvalidObjectState.*The operation is not valid.*restore it.*",
            "requester-pays": "exit 77: .*AccessDenied.*",
            "kms": "exit 77: .*KMS.DisabledException.*is disabled.*kms:Decrypt",
            "quota": "exit 69: .*QuotaExceeded.*quota exceeded.*this S3 is full.*",
            "minio-full": "exit 69: .*XMinioStorageFull.*this S3 is full.*",
            "skew": "exit 77: .*RequestTimeTooSkewed.*clock.*",
            "moved": NO_S3,
            "toomany": "exit 69: .*TooManyRequests.*reduce your .*: wait, then start again",
            "readonly": "exit 77: .*AccessDenied to PutObject.*",
        },
    ),
    "22-aws-credentials": Script(
        ["http://127.0.0.1:9"],
        {
            "none": NO_CREDENTIALS + "AWS_ACCESS_KEY_ID.*",
            "sso": NO_CREDENTIALS + "aws sso login.*",
            "sso-legacy-expired": NO_CREDENTIALS + "aws sso login.*",
            "process-fails": NO_CREDENTIALS + "vault is sealed.*credential_process.*",
            "process-text": NO_CREDENTIALS + "credential_process by hand.*",
            "loop": NO_CREDENTIALS + "mend the profile.*",
            "badsource": NO_CREDENTIALS + "mend the profile.*",
            "web-identity-missing": NO_CREDENTIALS + "AWS_WEB_IDENTITY_TOKEN_FILE.*",
            "web-identity-folder": NO_CREDENTIALS + "AWS_WEB_IDENTITY_TOKEN_FILE.*",
            "container-gone": NO_CREDENTIALS + "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "ca-missing": UNREACHED,
            "fips": UNREACHED,
            "dualstack": UNREACHED,
        },
    ),
    "23-http-redirect": Script(
        ["301", "302", "307", "308", "200", "500", "404", "401", "403"],
        {
            **dict.fromkeys(("301", "302", "307", "308", "200", "500"), NO_S3),
            "404": "exit 2: .*S3 answered 404.*",
            "401": "exit 77: .*S3 answered 401.*a proxy.*login",
            "403": "exit 77: .*S3 answered 403.*",
        },
    ),
    "24-tls": Script(
        [],
        {
            "trusted": "exit 2: .*S3 answered 404.*the bucket must exist",
            "untrusted": NOT_TRUSTED,
            "bundle-missing": NOT_TRUSTED,
            "bundle-is-a-folder": NOT_TRUSTED,
            "bundle-is-no-certificate": NOT_TRUSTED,
            "http-on-the-tls-port": UNREACHED,
        },
    ),
    "34-kaggle-json": Script(
        [],
        {
            **dict.fromkeys(
                ("utf-16", "utf-8-bom", "smart-quotes", "empty", "list", "key-missing", "numbers"),
                TOKEN,
            ),
            # A sound token is not refused: Kaggle is not reached, and timeout ends the retries.
            "plain": "exit (69: .*does not answer.*|124: stopped by SIGTERM: .*)",
        },
        has_s3=True,
    ),
    "35-own-aws-config": Script(
        [],
        dict.fromkeys(
            (
                *("ignore", "fips", "accelerate", "services", "broken", "dualstack-env"),
                *("ca-env", "role-env", "all-proxy"),
            ),
            "exit 0",
        ),
    ),
}
