// Airflow shows a plugin's tabs on the runs of all DAGs. This hides ours on those of others.
const style = document.createElement("style");
style.textContent = `
  a[href$="/plugin/training-report"]:not([href*="/dags/lung_segmentation/"]),
  a[href$="/plugin/lung-masks"]:not(
    [href*="/dags/lung_segmentation/"],
    [href*="/dags/lung_masks/"]
  ) { display: none; }`;
document.head.append(style);
// The component that Airflow mounts on every page; it has nothing to show.
globalThis.lung_tab_filter = () => null;
