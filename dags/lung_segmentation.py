"""The DAG that trains, evaluates and publishes a lung segmentation model, every week."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, chain, task

from lung.stages import flags, manifest_of, params, safe_run_id, setting, stage

DOC = """
### Lung masks from chest X-rays

Trains a U-Net on the films of **Source of the films**, scores it on films it has not seen, and
publishes a report and the model. Every job reads and writes S3 under `LUNG_BUCKET_URI`; work that
is found done there is reused, so a run on unchanged films takes seconds up to train. Results of a
run: `runs/<run_id>/report.html`; the loss histories: the `train` task's XCom names their manifest.

| task | what it does | when it fails |
|---|---|---|
| download | copies films and masks to S3 | 77: accept the data set's terms on kaggle.com, or renew the token in the connection `kaggle`. 65: the archive is damaged, its member is named. 2: the source is misspelt. |
| preprocess | merges left and right masks, resizes, splits by patient | 65: too many films were quarantined, the log counts the reasons; mend the films, or raise **Largest share quarantined**. |
| train | trains, one checkpoint an epoch in S3 | Killed for memory: lower **Batch size** or **Image size**, or raise `LUNG_JOBS_MEMORY`. 75: nothing to do, the next try continues with the epoch after the last checkpoint. |
| predict | a mask for every film, in **Shards** parts side by side | Clear the failed part alone: what it had done is kept. |
| evaluate | Dice and IoU at the films' own size | 65: there is no truth mask among the test films; look at `preprocess`. |
| publish | the report, the model package, the champion | A model under **Minimum Dice** is no failure: the champion stays, and the report says so. |

Exit codes 2, 65 and 77 are never retried, others twice with growing pauses. What a job said last is
in the task's error; what to do, and the value it met, is in that line. 69: S3 or Kaggle does not
answer; the retries wait for it. To do work again that would be reused, delete its folder in S3.
"""

with DAG(
    dag_id="lung_segmentation",
    dag_display_name="Lung segmentation",
    description="Chest X-rays to lung masks: download, preprocess, train, predict, evaluate, publish",
    doc_md=DOC,
    schedule=None if setting("LUNG_SCHEDULE") == "never" else setting("LUNG_SCHEDULE"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["lung", "segmentation", "training"],
    user_defined_macros={"safe_run_id": safe_run_id},
    default_args={
        "owner": "lung",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=20),
        "execution_timeout": timedelta(hours=6),
    },
    params={
        **params(),
        "shards": Param(
            1,
            type="integer",
            minimum=1,
            maximum=64,
            title="Shards",
            description="Parts of the films that are predicted side by side, one task each",
            section="Advanced",
        ),
    },
) as dag:

    @task
    def shards(count: str) -> list[str]:
        return [f"{i}/{count}" for i in range(1, int(count) + 1)]

    download = stage("download", flags("download"))
    preprocess = stage("preprocess", ["--raw", manifest_of("download"), *flags("preprocess")])
    train = stage(
        "train",
        ["--processed", manifest_of("preprocess"), *flags("train")],
        execution_timeout=timedelta(days=2),
    )
    predict = stage(
        "predict",
        [
            *("--trained", manifest_of("train"), "--films", manifest_of("download")),
            *("--shard", "{{ task.shard }}"),
            *flags("predict"),
        ],
        shards=shards("{{ params.shards }}"),
    )
    evaluate = stage(
        "evaluate",
        [
            *("--predictions", manifest_of("predict", mapped=True)),
            *("--processed", manifest_of("preprocess")),
            *flags("evaluate"),
        ],
    )
    publish = stage(
        "publish",
        [
            *("--raw", manifest_of("download"), "--processed", manifest_of("preprocess")),
            *(
                "--trained",
                manifest_of("train"),
                "--predictions",
                manifest_of("predict", mapped=True),
            ),
            *("--evaluation", manifest_of("evaluate")),
            *flags("publish"),
        ],
    )

    chain(download, preprocess, train, predict, evaluate, publish)
