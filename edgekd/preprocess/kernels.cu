// One fused pass from a stored frame to the network's input: crop, colour, resize, normalise, layout, precision.
//
// The arithmetic follows preprocess_frame() in reference.py. Where to read and how to weigh comes in tables that the
// host computes in float64, because float32 coordinates cost two decimal digits. Products and sums are fmaf() calls
// and the file is compiled without contraction, so every compiler, and the C++ one of the tests, rounds alike.
//
// The specification is compiled in (build_kernel_options() in kernel.py writes these macros):
//   PIXEL_BITS                 8 or 16, unsigned
//   CROP_TOP, CROP_LEFT        first pixel that is kept
//   OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH
//   FRAME_IS_BGR, HALF_OUT     0 or 1
//   GAIN_n, OFFSET_n           for channel n of 0, 1, 2: tensor = pixel * gain + offset
// The frame's size, its stride and thereby the tables are known only when it arrives.

#if PIXEL_BITS == 16
typedef unsigned short Pixel;
#else
typedef unsigned char Pixel;
#endif

#if HALF_OUT
typedef unsigned short Element;
#else
typedef float Element;
#endif

#if HALF_OUT && !defined(ENCODE_HALF)
// The bits of the nearest half, ties to even; cuda_fp16.h is not part of the NVRTC wheel.
static __device__ __forceinline__ unsigned short encode_half(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

static __device__ __forceinline__ void store(Element *target, float value)
{
#if HALF_OUT
    *target = encode_half(value);
#else
    *target = value;
#endif
}

template <int FRAME_CHANNELS>
static __device__ __forceinline__ float read_channel(const Pixel *pixel, int channel)
{
    if (FRAME_CHANNELS == 1)
        return (float)pixel[0];
    const int red = FRAME_IS_BGR ? 2 : 0;
    const int blue = 2 - red;
    if (OUT_CHANNELS == 1)
        // Integer BT.601 luma; the largest sum still fits 32 bits.
        return (float)((19595u * pixel[red] + 38470u * pixel[1] + 7471u * pixel[blue] + 32768u) >> 16);
    return (float)pixel[channel == 0 ? red : (channel == 1 ? 1 : blue)];
}

// Adds TAPS columns of a window, from column ``first`` on, to ``resized``, over all its rows.
// The columns' weights stay in registers meanwhile: a tap then costs one load, of the pixel, and no second one.
template <int FRAME_CHANNELS, int PLANES, int TAPS>
static __device__ __forceinline__ void add_columns(
    float *resized, const unsigned char *window, unsigned long long row_stride,
    const float *row_weights, int row_taps, const float *column_weights, int first)
{
    float weights[TAPS];
    for (int tap = 0; tap < TAPS; ++tap)
        weights[tap] = column_weights[(first + tap) * OUT_WIDTH];
    const unsigned char *row = window + first * FRAME_CHANNELS * sizeof(Pixel);
    for (int row_tap = 0; row_tap < row_taps; ++row_tap, row += row_stride) {
        const Pixel *pixel = (const Pixel *)row;
        float along_row[PLANES] = {};
        for (int tap = 0; tap < TAPS; ++tap, pixel += FRAME_CHANNELS)
            for (int plane = 0; plane < PLANES; ++plane)
                along_row[plane] = fmaf(weights[tap], read_channel<FRAME_CHANNELS>(pixel, plane), along_row[plane]);
        const float weight = row_weights[row_tap * OUT_HEIGHT];
        for (int plane = 0; plane < PLANES; ++plane)
            resized[plane] = fmaf(weight, along_row[plane], resized[plane]);
    }
}

// frames          batch of frames (H, W, FRAME_CHANNELS), rows row_stride bytes apart, frames frame_stride bytes apart
// row_starts      (OUT_HEIGHT,) first row of the crop that an output row reads
// row_weights     (row_taps, OUT_HEIGHT): neighbouring threads read neighbouring weights
// column_*        the same along the width
// images          N tensors (OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH), image_stride elements apart
template <int FRAME_CHANNELS>
static __device__ __forceinline__ void preprocess(
    const unsigned char *__restrict__ frames, unsigned long long frame_stride, unsigned long long row_stride,
    const int *__restrict__ row_starts, const float *__restrict__ row_weights, int row_taps,
    const int *__restrict__ column_starts, const float *__restrict__ column_weights, int column_taps,
    Element *__restrict__ images, unsigned long long image_stride)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= OUT_WIDTH || y >= OUT_HEIGHT)
        return;
    // A grey frame gives every channel of the tensor the same resized value.
    const int planes = FRAME_CHANNELS == 1 ? 1 : OUT_CHANNELS;
    float resized[planes] = {};
    const unsigned char *window = frames + blockIdx.z * frame_stride + (CROP_TOP + row_starts[y]) * row_stride
                                + (CROP_LEFT + column_starts[x]) * FRAME_CHANNELS * sizeof(Pixel);
    row_weights += y;
    column_weights += x;
    for (int first = 0; first + 8 <= column_taps; first += 8)
        add_columns<FRAME_CHANNELS, planes, 8>(
            resized, window, row_stride, row_weights, row_taps, column_weights, first);
    // What is left over, by the binary digits of their number: the highest first.
    if (column_taps & 4)
        add_columns<FRAME_CHANNELS, planes, 4>(
            resized, window, row_stride, row_weights, row_taps, column_weights, column_taps & ~7);
    if (column_taps & 2)
        add_columns<FRAME_CHANNELS, planes, 2>(
            resized, window, row_stride, row_weights, row_taps, column_weights, column_taps & ~3);
    if (column_taps & 1)
        add_columns<FRAME_CHANNELS, planes, 1>(
            resized, window, row_stride, row_weights, row_taps, column_weights, column_taps & ~1);
    const float gains[] = {GAIN_0, GAIN_1, GAIN_2};
    const float offsets[] = {OFFSET_0, OFFSET_1, OFFSET_2};
    Element *target = images + blockIdx.z * image_stride + y * OUT_WIDTH + x;
    for (int channel = 0; channel < OUT_CHANNELS; ++channel, target += OUT_HEIGHT * OUT_WIDTH)
        store(target, fmaf(resized[planes == 1 ? 0 : channel], gains[channel], offsets[channel]));
}

extern "C" __global__ void preprocess_gray_frames(
    const unsigned char *frames, unsigned long long frame_stride, unsigned long long row_stride,
    const int *row_starts, const float *row_weights, int row_taps,
    const int *column_starts, const float *column_weights, int column_taps,
    Element *images, unsigned long long image_stride)
{
    preprocess<1>(frames, frame_stride, row_stride, row_starts, row_weights, row_taps,
                  column_starts, column_weights, column_taps, images, image_stride);
}

extern "C" __global__ void preprocess_color_frames(
    const unsigned char *frames, unsigned long long frame_stride, unsigned long long row_stride,
    const int *row_starts, const float *row_weights, int row_taps,
    const int *column_starts, const float *column_weights, int column_taps,
    Element *images, unsigned long long image_stride)
{
    preprocess<3>(frames, frame_stride, row_stride, row_starts, row_weights, row_taps,
                  column_starts, column_weights, column_taps, images, image_stride);
}
