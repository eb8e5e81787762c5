"""The DAG that trains, evaluates and publishes a lung segmentation model every week."""

from __future__ import annotations

from datetime import timedelta

import lung.prerequisites  # noqa: F401  # dags/lung, which belongs into the plugins folder

# isort: split
from airflow.sdk import DAG, Param, chain, task

from lung.assets import CHAMPION_MOVED, TRAINING, record_champion, record_training
from lung.form import container_params, params
from lung.gpu_share import all_gpus, gpus_param, one_gpu
from lung.notices import report_champion
from lung.settings import schedule
from lung.tasks import POLICY, job_task, manifest_of

DOC = """
### Lung masks from chest X-rays

Trains a U-Net on the films of **Source of the films**, evaluates it on test films that it was not
trained on, and publishes a report and the model. Every job reads and writes S3 under
`LUNG_BUCKET_URI`. Finished work is reused: a second run on the same films and settings takes
seconds. While `train` runs and afterwards, the run's tab *Training report* shows the loss
histories; the last figures and the URIs of the histories are in the `train` task's XCom and in the
event of the asset `lung_training`. The run's report is `runs/<run_id>/report.html`. The tab *Masks*
shows the films with the masks of `predict`, those for review first. A new champion is an event of
the asset `lung_champion`, which starts `lung_masks`.

| task | what it does | when it fails |
|---|---|---|
| shards | numbers the shards of `predict` | No job runs in this task: its log has an error of Airflow. Clear it. |
| download | copies films and masks to S3 | 77: accept the data set's terms on kaggle.com, or renew the token in the connection `kaggle`. 65: the archive is damaged; the log names the member. 2: the source is misspelt. |
| preprocess | merges left and right masks, resizes, splits by patient | 65: too many films were quarantined; the log counts the reasons. Mend the films, name the **Values of the masks that are lung**, or raise **Largest share quarantined**. |
| train | trains; one checkpoint per epoch in S3 | Killed for memory: lower **Batch size**, **Image size** or **Network**, or raise **Memory**. 75: nothing to do, the next try resumes at the last step. Queued for a long time: other tasks have the slots of the pool `gpu`, or the pool is missing or has fewer slots than `LUNG_GPUS`. Running without a step: its log says which jobs hold the GPUs. |
| predict | writes a mask for every film, in **Shards** parallel tasks | Clear the failed shard only: its finished work is reused. |
| evaluate | Dice, IoU and HD95 at the films' original size with confidence intervals; calibration | 65: no test film has a truth mask; look at `preprocess`. |
| publish | writes the report and the model package, decides on the champion | A model below **Minimum Dice** does not fail the task: the champion stays, and the report says so. So does the starter, which the first model has to beat on films of people, unless **Starter until there is a champion** is off. |

Exit codes 2, 65 and 77 are never retried, others twice with growing delays. A failed task's error,
also on the run's tabs, has the job's last line, which names the value that was refused
and the remedy. 69: S3 or Kaggle does not answer; the retries wait for it. To repeat reused work,
delete its folder in S3.

A task may fail without an error: The task's process was lost: it was killed, mostly for lack of
memory, or its machine went away. A try that is left resumes from the saved state; after the last
one, clear this task. Airflow's audit log then has a `heartbeat timeout` of the task, or the task's
log ends with "Process terminated by signal".

#### To be created once, under Admin

- the pool `gpu` with as many slots as `LUNG_GPUS`, one where that is `all` or 0: a task takes as many
  slots as GPUs, a training on the CPU one;
- the connection `lung_s3`: type aws, access key, secret key, extra `endpoint_url` unless it is AWS;
- the connection `kaggle`, only for `kaggle://` sources: an API token as password;
- the connection `lung_webhook`, only to be notified of tasks that failed on their last try and of
  the champion: type http, an incoming webhook of Slack, Mattermost or Teams as host. A secret end
  of its path goes into the password.

`dags/lung/settings.py` lists the deployment's settings.
"""

with DAG(
    dag_id="lung_segmentation",
    dag_display_name="Lung segmentation",
    description="Chest X-rays to lung masks: download, preprocess, train, predict, evaluate, publish",
    doc_md=DOC,
    schedule=schedule("LUNG_SCHEDULE"),
    tags=["lung", "segmentation", "training"],
    params=params(
        "download",
        "preprocess",
        "train",
        "evaluate",
        "publish",
        gpus=gpus_param(),
        shards=Param(
            1,
            type="integer",
            minimum=1,
            maximum=64,
            title="Shards",
            description="Parts of the films that are predicted in parallel, one task each",
            section="Advanced",
        ),
        **container_params(),
    ),
    **POLICY,
) as dag:
    # A task, because the number of shards is a param, known only at run time.
    @task
    def shards(count: str) -> list[str]:
        return [f"{i}/{count}" for i in range(1, int(count) + 1)]

    numbered = shards("{{ params.shards }}")
    download = job_task("download")
    preprocess = job_task("preprocess", {"raw": manifest_of("download")})
    train = job_task(
        "train",
        {"processed": manifest_of("preprocess")},
        **all_gpus(),
        execution_timeout=timedelta(days=2),
        outlets=[TRAINING],
        post_execute=record_training,
    )
    predict = job_task(
        "predict",
        {
            "trained": manifest_of("train"),
            "films": manifest_of("download"),
            "shard": "{{ task.shard }}",
        },
        shards=numbered,
        **one_gpu(),
    )
    evaluate = job_task(
        "evaluate",
        {
            "predictions": manifest_of("predict", mapped=True),
            "processed": manifest_of("preprocess"),
        },
    )
    publish = job_task(
        "publish",
        {
            "raw": manifest_of("download"),
            "processed": manifest_of("preprocess"),
            "trained": manifest_of("train"),
            "predictions": manifest_of("predict", mapped=True),
            "evaluation": manifest_of("evaluate"),
        },
        **one_gpu(),
        outlets=[CHAMPION_MOVED],
        post_execute=record_champion,
        on_success_callback=report_champion,
    )

    chain(download, preprocess, train, predict, evaluate, publish)
    # One first task: a run with a param that is not on the form fails once, with one notice.
    chain(download, numbered)
