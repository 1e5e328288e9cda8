// From what the user typed to the text that is decoded: markers for the images, and the model's
// chat template around the message.
#pragma once

#include <llama.h>

#include <cstddef>
#include <string>

#include "options.h"

namespace mipruner::cli {

size_t count_markers(const std::string& text);

// `message` with a marker for each image in front, unless the user placed markers. Throws Failure
// where there are not as many markers as images.
std::string place_images(const std::string& message, size_t n_images);

// The words alone: what the images are scored against.
std::string without_markers(std::string message);

class ChatFormat {
 public:
  // Throws UsageError for a template that llama.cpp does not have.
  ChatFormat(const llama_model* model, const Options& options);

  // The text that a message adds to the chat: at its start with the system prompt, later with the
  // end of the answer before it.
  std::string render(const std::string& message, bool is_first) const;

  // What the user should know about the choice of the template, or "".
  const std::string& note() const { return note_; }

 private:
  enum class Kind { kTemplate, kPlain, kVerbatim };

  void use_model_template(const llama_model* model);
  std::string render_template(const std::string& message, bool is_first) const;

  Kind kind_ = Kind::kTemplate;
  std::string template_;
  std::string system_prompt_;
  std::string note_;
};

}  // namespace mipruner::cli
