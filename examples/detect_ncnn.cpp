// Draw a detector's boxes on a photo: detect_ncnn MODEL.ncnn.param PHOTO OUT [SCORE_THR]
//
// Copy this file and the model's .param, .bin and .json files to the device. The input size, the
// class names, how to resize a photo and how to choose among the boxes are in the .json file.
// Neither PyTorch nor lightvit_mm is needed, only a C++17 compiler, CMake, and ncnn. Built as
// follows, ncnn reads and draws photos itself (without turning them as their EXIF data says):
//
//     git clone --depth 1 --branch 20261020 https://github.com/Tencent/ncnn
//     cmake -S ncnn -B ncnn/build -DCMAKE_BUILD_TYPE=Release -DNCNN_SIMPLEOCV=ON
//     cmake ncnn/build -DNCNN_BUILD_TOOLS=OFF -DNCNN_BUILD_EXAMPLES=OFF -DNCNN_BUILD_BENCHMARK=OFF
//     cmake --build ncnn/build --target install --parallel 4
//
// An ncnn without NCNN_SIMPLEOCV needs OpenCV too (libopencv-dev in Debian). Write this
// CMakeLists.txt beside this file,
//
//     cmake_minimum_required(VERSION 3.10)
//     project(detect_ncnn CXX)
//     set(CMAKE_CXX_STANDARD 17)
//     find_package(ncnn REQUIRED)
//     add_executable(detect_ncnn detect_ncnn.cpp)
//     target_link_libraries(detect_ncnn ncnn)
//     find_package(OpenCV QUIET COMPONENTS core imgproc imgcodecs)
//     if(OpenCV_FOUND)
//         target_include_directories(detect_ncnn PRIVATE ${OpenCV_INCLUDE_DIRS})
//         target_link_libraries(detect_ncnn ${OpenCV_LIBS})
//     endif()
//
// and build it:
//
//     cmake -B build -DCMAKE_BUILD_TYPE=Release -Dncnn_DIR=$PWD/ncnn/build/install/lib/cmake/ncnn
//     cmake --build build

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "net.h"
#if NCNN_SIMPLEOCV
#include "simpleocv.h"
#else
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#endif

struct Detection {
    float left, top, right, bottom, score;
    int label;

    float area() const { return (right - left) * (bottom - top); }
};

// The numbers and texts of one value in a JSON text: those of a list, or a single one. true is 1,
// false 0, and null nothing.
struct Value {
    std::vector<double> numbers;
    std::vector<std::string> texts;

    // The value that follows the first "key" after the position `from`.
    Value(const std::string& json, const std::string& key, size_t from = 0) {
        const std::string mark = '"' + key + "\":";
        size_t at = json.find(mark, from);
        if (at == std::string::npos) throw std::runtime_error("no " + key + " in the .json file");
        at = std::min(json.find_first_not_of(' ', at + mark.size()), json.size());
        const bool list = json[at] == '[';
        for (at += list; at < json.size() && json[at] != ']' && json[at] != '}';) {
            if (json[at] == '"') {
                std::string text;
                for (++at; at < json.size() && json[at] != '"'; ++at) {
                    char letter = json[at];
                    if (letter == '\\') {
                        letter = json[++at];
                        if (letter == 'u') at += 4;
                        // Line breaks and the like cannot be drawn.
                        if (letter != '"' && letter != '\\' && letter != '/') letter = ' ';
                    }
                    text += letter;
                }
                texts.push_back(text);
                ++at;
            } else if (json[at] == ' ' || json[at] == ',') {
                if (!list) break;
                ++at;
            } else {
                const size_t end = json.find_first_of(",]} ", at);
                const std::string word = json.substr(at, end - at);
                if (word != "null") numbers.push_back(word == "true" ? 1 : std::atof(word.c_str()));
                at = end;
            }
        }
    }

    double number() const { return numbers.at(0); }
};

// Choose detections among all boxes (priors, 4) and scores (priors, classes).
std::vector<Detection> choose(const ncnn::Mat& boxes, const ncnn::Mat& scores,
                              const std::string& json) {
    const size_t rule = json.find("\"choice\":");
    const float least = Value(json, "score_thr", rule).number();
    const float side = Value(json, "min_bbox_size", rule).number();
    const float overlap = Value(json, "iou_threshold", rule).number();
    const size_t best = Value(json, "nms_pre", rule).number();
    const size_t most = Value(json, "max_per_img", rule).number();
    const bool agnostic = Value(json, "class_agnostic", rule).number();
    const auto better = [](const Detection& a, const Detection& b) { return a.score > b.score; };
    std::vector<Detection> found, kept;
    int prior = 0;
    for (const double count : Value(json, "levels", rule).numbers) {
        std::vector<Detection> level;
        for (const int end = prior + int(count); prior < end; ++prior) {
            const float* box = boxes.row(prior);
            for (int label = 0; label < scores.w; ++label) {
                const float score = scores.row(prior)[label];
                if (score > least) level.push_back({box[0], box[1], box[2], box[3], score, label});
            }
        }
        std::stable_sort(level.begin(), level.end(), better);
        if (level.size() > best) level.resize(best);
        found.insert(found.end(), level.begin(), level.end());
    }
    std::stable_sort(found.begin(), found.end(), better);
    for (const Detection& one : found) {
        if (kept.size() == most) break;
        if (side >= 0 && std::min(one.right - one.left, one.bottom - one.top) <= side) continue;
        const bool free = std::none_of(kept.begin(), kept.end(), [&](const Detection& other) {
            if (!agnostic && one.label != other.label) return false;
            const float width = std::min(one.right, other.right) - std::max(one.left, other.left);
            const float height = std::min(one.bottom, other.bottom) - std::max(one.top, other.top);
            const float shared = std::max(width, 0.f) * std::max(height, 0.f);
            return shared > overlap * (one.area() + other.area() - shared);
        });
        if (free) kept.push_back(one);
    }
    return kept;
}

// Resize a photo and pad it to the file's input, as in the tests of the detector; `size` becomes
// the width and height of the photo in it.
ncnn::Mat fit(const cv::Mat& photo, const std::string& json, cv::Size& size) {
    const std::vector<double> full = Value(json, "size").numbers;
    const std::vector<double> scale = Value(json, "scale").numbers;
    const std::vector<double> pad = Value(json, "pad").numbers;
    const int height = int(full.at(0)), width = int(full.at(1));
    size = cv::Size(width, height);
    if (Value(json, "keep_ratio").number()) {
        const double rows = photo.rows, cols = photo.cols;
        double ratio = std::min(width / cols, height / rows);
        if (scale.empty()) {
            ratio = std::min(ratio, Value(json, "scale_factor").number());
        } else {
            ratio = std::min(ratio, std::max(scale[0], scale[1]) / std::max(rows, cols));
            ratio = std::min(ratio, std::min(scale[0], scale[1]) / std::min(rows, cols));
        }
        // mmcv rounds halves up, lrint to the even number.
        size.width = std::max(1, int(cols * ratio + 0.5));
        size.height = std::max(1, int(rows * ratio + 0.5));
    }
    cv::Mat small;
    cv::resize(photo, small, size);
    ncnn::Mat input(width, height, 3);
    for (int channel = 0; channel < 3; ++channel) {
        for (int y = 0; y < height; ++y) {
            float* row = input.channel(channel).row(y);
            std::fill(row, row + width, float(pad.at(channel)));
            if (y >= size.height) continue;
            for (int x = 0; x < size.width; ++x) row[x] = small.ptr(y)[3 * x + channel];
        }
    }
    return input;
}

int detect(const std::string& model, const std::string& file, const std::string& out,
           double score_thr) {
    std::error_code missing;  // OUT need not exist
    if (std::filesystem::equivalent(file, out, missing))
        throw std::runtime_error(out + " is the photo: give another file to write");
    const std::string stem = model.substr(0, model.rfind('.'));
    std::ifstream stream(stem + ".json");
    const std::string json{std::istreambuf_iterator<char>(stream), {}};
    if (json.find("\"choice\":") == std::string::npos)
        throw std::runtime_error(stem + ".json is missing or not that of a detector");
    ncnn::Net net;
    // 16 bits, the default on ARM, change boxes: compare them before you allow it.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    if (net.load_param(model.c_str()) || net.load_model((stem + ".bin").c_str()))
        throw std::runtime_error(model + " or its .bin file is not one that ncnn can read");
    cv::Mat photo = cv::imread(file);
    if (photo.empty()) throw std::runtime_error(file + " is not an image");

    cv::Size size;
    ncnn::Extractor run = net.create_extractor();
    ncnn::Mat boxes, scores;
    run.input("in0", fit(photo, json, size));
    if (run.extract("out0", boxes) || run.extract("out1", scores))
        throw std::runtime_error(model + " has no boxes and scores");

    const std::vector<std::string> classes = Value(json, "classes").texts;
    const float wide = float(photo.cols) / size.width, high = float(photo.rows) / size.height;
    const cv::Scalar red(0, 0, 255);
    for (const Detection& found : choose(boxes, scores, json)) {
        if (found.score < score_thr) break;
        const auto column = [&](float x) { return wide * std::clamp(x, 0.f, float(size.width)); };
        const auto line = [&](float y) { return high * std::clamp(y, 0.f, float(size.height)); };
        const float left = column(found.left), right = column(found.right);
        const float top = line(found.top), bottom = line(found.bottom);
        if (left == right || top == bottom) continue;  // it was in the padding
        const std::string& name = classes.at(found.label);
        std::printf("%s %.3f %.1f %.1f %.1f %.1f\n", name.c_str(), found.score, left, top, right,
                    bottom);
        const cv::Point corner(std::lrint(left), std::lrint(top));
        const cv::Point opposite(std::lrint(right), std::lrint(bottom));
        cv::rectangle(photo, corner, opposite, red, 2);
        const cv::Point start(corner.x, std::max(corner.y, 20));  // inside the picture
        cv::putText(photo, name, start, cv::FONT_HERSHEY_SIMPLEX, 0.5, red);
    }
    if (!cv::imwrite(out, photo)) throw std::runtime_error(out + " cannot be written");
    std::printf("wrote %s\n", out.c_str());
    return 0;
}

int main(int count, char** arguments) {
    char* rest = nullptr;
    const double score_thr = count > 4 ? std::strtod(arguments[4], &rest) : 0.3;
    if (count < 4 || count > 5 || (rest && *rest)) {
        std::fprintf(stderr, "usage: detect_ncnn MODEL.ncnn.param PHOTO OUT [SCORE_THR (0.3)]\n");
        return 2;
    }
    try {
        return detect(arguments[1], arguments[2], arguments[3], score_thr);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 2;
    }
}
