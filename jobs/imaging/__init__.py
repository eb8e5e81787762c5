"""Films and masks as arrays: decoding, resampling and drawing; numpy in, numpy out."""

import cv2

# The jobs run their own threads over films; OpenCV's inside each of them only contend.
cv2.setNumThreads(0)
