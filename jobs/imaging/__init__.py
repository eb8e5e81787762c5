"""Films and masks as arrays: decoding, resampling and drawing; numpy in, numpy out."""

import cv2

# The jobs process films in parallel threads, with which OpenCV's own would compete for the cores.
cv2.setNumThreads(0)
