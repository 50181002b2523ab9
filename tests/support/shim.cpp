// The kernel as a host library: compiled with -DKERNEL_SOURCE="path" and the macros of build_kernel_options().
#include "shim.h"

#include KERNEL_SOURCE

extern "C" void run_shim(
    int frame_channels, const unsigned *grid, const unsigned *block,
    const unsigned char *frames, unsigned long long frame_stride, unsigned long long row_stride,
    const int *row_starts, const float *row_weights, int row_taps,
    const int *column_starts, const float *column_weights, int column_taps,
    void *images, unsigned long long image_stride)
{
    auto kernel = frame_channels == 1 ? preprocess_gray_frames : preprocess_color_frames;
    run_grid(kernel, Index{grid[0], grid[1], grid[2]}, Index{block[0], block[1], 1},
             frames, frame_stride, row_stride, row_starts, row_weights, row_taps,
             column_starts, column_weights, column_taps, (Element *)images, image_stride);
}
