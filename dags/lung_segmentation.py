"""The DAG that trains, evaluates and publishes a lung segmentation model, every week."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, chain, task

from lung.assets import CHAMPION_MOVED, TRAINING, record_champion, record_training
from lung.notices import tell_of_champion
from lung.tasks import (
    POLICY,
    container_params,
    flags,
    manifest_of,
    params,
    schedule,
    setting,
    stage,
)

DOC = """
### Lung masks from chest X-rays

Trains a U-Net on the films of **Source of the films**, scores it on films it has not seen, and
publishes a report and the model. Every job reads and writes S3 under `LUNG_BUCKET_URI`; work that
is found done there is reused, so a run on unchanged films takes seconds up to train. While `train`
runs and after, the tab *Training report* of the run shows the loss histories; they are in the
`train` task's XCom and in the event of the asset `lung_training` too. Results of a run:
`runs/<run_id>/report.html`. When the champion moves, the asset `lung_champion` has an event, and
`lung_masks` masks its films anew.

| task | what it does | when it fails |
|---|---|---|
| shards | numbers the parts that `predict` works on | Nothing of the jobs runs in it: its log has Airflow's own error. Clear it. |
| download | copies films and masks to S3 | 77: accept the data set's terms on kaggle.com, or renew the token in the connection `kaggle`. 65: the archive is damaged, its member is named. 2: the source is misspelt. |
| preprocess | merges left and right masks, resizes, splits by patient | 65: too many films were quarantined, the log counts the reasons; mend the films, or raise **Largest share quarantined**. |
| train | trains, one checkpoint an epoch in S3 | Killed for memory: lower **Batch size**, **Image size** or **Network**, or raise **Memory**. 75: nothing to do, the next try goes on from the last step. Not started for long: the pool `gpu` is missing, or another training has its slot. |
| predict | a mask for every film, in **Shards** parts side by side | Clear the failed part alone: what it had done is kept. |
| evaluate | Dice, IoU and HD95 at the films' own size, with their intervals; how far to trust them | 65: there is no truth mask among the test films; look at `preprocess`. |
| publish | the report, the model package, the champion | A model under **Minimum Dice** is no failure: the champion stays, and the report says so. |

Exit codes 2, 65 and 77 are never retried, others twice with growing pauses. What a job said last is
in the task's error; what to do, and the value it met, is in that line. 69: S3 or Kaggle does not
answer; the retries wait for it. To do work again that would be reused, delete its folder in S3.

#### To be created once, under Admin

- the pool `gpu` with one slot: one training at a time, never two on one GPU;
- the connection `lung_s3`: type aws, access key, secret key, extra `endpoint_url` unless it is AWS;
- the connection `kaggle`, only for `kaggle://` sources: password, an API token;
- the connection `lung_webhook`, only to be told of failures after the last try and of the champion:
  type http, host: an incoming webhook of Slack, Mattermost or Teams. Where the end of its path is
  secret, that as password.

`dags/lung/tasks.py` lists the deployment's settings.
"""

with DAG(
    dag_id="lung_segmentation",
    dag_display_name="Lung segmentation",
    description="Chest X-rays to lung masks: download, preprocess, train, predict, evaluate, publish",
    doc_md=DOC,
    schedule=schedule("LUNG_SCHEDULE"),
    tags=["lung", "segmentation", "training"],
    params=params(
        *("download", "preprocess", "train", "evaluate", "publish"),
        gpus=Param(
            int(setting("LUNG_GPUS")),
            type="integer",
            minimum=0,
            maximum=16,
            title="GPUs",
            description="GPUs that train together; 0 trains on the CPU",
        ),
        shards=Param(
            1,
            type="integer",
            minimum=1,
            maximum=64,
            title="Shards",
            description="Parts of the films that are predicted side by side, one task each",
            section="Advanced",
        ),
        **container_params(),
    ),
    **POLICY,
) as dag:

    @task
    def shards(count: str) -> list[str]:
        return [f"{i}/{count}" for i in range(1, int(count) + 1)]

    download = stage("download", flags("download"))
    preprocess = stage("preprocess", ["--raw", manifest_of("download"), *flags("preprocess")])
    train = stage(
        "train",
        [
            *("--processed", manifest_of("preprocess"), *flags("train")),
            *("--processes", "{{ [1, params.gpus] | max }}"),
        ],
        gpus="{{ params.gpus }}",
        pool=setting("LUNG_POOL"),
        execution_timeout=timedelta(days=2),
        outlets=[TRAINING],
        post_execute=record_training,
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
            *("--trained", manifest_of("train")),
            *("--predictions", manifest_of("predict", mapped=True)),
            *("--evaluation", manifest_of("evaluate")),
            *flags("publish"),
        ],
        outlets=[CHAMPION_MOVED],
        post_execute=record_champion,
        on_success_callback=tell_of_champion,
    )

    chain(download, preprocess, train, predict, evaluate, publish)
