#include "prompt.h"

#include <mtmd.h>

#include <algorithm>
#include <vector>

#include "failure.h"

namespace mipruner::cli {
namespace {

// Stands for the last answer in a rendered chat. What a template puts behind it is what has to be
// decoded next; the answer itself is in the KV cache already, token by token as it was generated.
constexpr char kAnswer[] = "<mipruner-answer>";

std::vector<const char*> builtin_templates() {
  const int32_t count = llama_chat_builtin_templates(nullptr, 0);
  std::vector<const char*> names(static_cast<size_t>(std::max(count, 0)));
  llama_chat_builtin_templates(names.data(), names.size());
  return names;
}

void check_template_name(const std::string& name) {
  std::string allowed = "none";
  for (const char* known : builtin_templates()) {
    if (name == known) return;
    allowed += join(", ", known);
  }
  throw UsageError(join("--chat-template: got \"", name, "\", allowed are ", allowed));
}

// False where llama.cpp does not know the template.
bool apply_template(const std::string& chat_template,
                    const std::vector<llama_chat_message>& messages, std::string* text) {
  const auto apply = [&](std::vector<char>* buffer) {
    return llama_chat_apply_template(chat_template.c_str(), messages.data(), messages.size(), true,
                                     buffer->data(), static_cast<int32_t>(buffer->size()));
  };
  std::vector<char> buffer(1024);
  int32_t length = apply(&buffer);
  if (length < 0) return false;
  if (static_cast<size_t>(length) > buffer.size()) {
    buffer.resize(static_cast<size_t>(length));
    length = apply(&buffer);
  }
  text->assign(buffer.data(), static_cast<size_t>(length));
  return true;
}

}  // namespace

size_t count_markers(const std::string& text) {
  const std::string marker = mtmd_default_marker();
  size_t count = 0;
  for (size_t at = text.find(marker); at != std::string::npos;
       at = text.find(marker, at + marker.size())) {
    ++count;
  }
  return count;
}

std::string place_images(const std::string& message, size_t n_images) {
  const size_t n_markers = count_markers(message);
  if (n_markers == n_images) return message;
  if (n_markers > 0) {
    throw Failure(join("the message has the marker ", mtmd_default_marker(), " ", n_markers,
                       " times, and images were given: ", n_images));
  }
  std::string text;
  for (size_t i = 0; i < n_images; ++i) text += mtmd_default_marker();
  return text + message;
}

std::string without_markers(std::string message) {
  const std::string marker = mtmd_default_marker();
  for (size_t at = message.find(marker); at != std::string::npos; at = message.find(marker, at)) {
    message.erase(at, marker.size());
  }
  return message;
}

ChatFormat::ChatFormat(const llama_model* model, const Options& options)
    : system_prompt_(options.system_prompt) {
  if (!options.chat_template) {
    use_model_template(model);
  } else if (*options.chat_template == "none") {
    kind_ = Kind::kVerbatim;
  } else {
    check_template_name(*options.chat_template);
    template_ = *options.chat_template;
  }
}

void ChatFormat::use_model_template(const llama_model* model) {
  const char* own = llama_model_chat_template(model, nullptr);
  template_ = own ? own : "";
  std::string text;
  if (own && apply_template(template_, {{"user", ""}}, &text)) return;
  kind_ = Kind::kPlain;
  note_ = join(own ? "llama.cpp has not built in the model's chat template"
                   : "the model has no chat template",
               ": using plain \"User: ... Assistant:\" (--chat-template chooses another)");
}

std::string ChatFormat::render(const std::string& message, bool is_first) const {
  if (kind_ == Kind::kTemplate) return render_template(message, is_first);
  std::string text = is_first ? system_prompt_ : "";
  if (!is_first || !text.empty()) text += "\n";
  return text + (kind_ == Kind::kVerbatim ? message : "User: " + message + "\nAssistant:");
}

std::string ChatFormat::render_template(const std::string& message, bool is_first) const {
  std::vector<llama_chat_message> messages;
  if (!system_prompt_.empty()) messages.push_back({"system", system_prompt_.c_str()});
  if (!is_first) {
    messages.push_back({"user", "-"});
    messages.push_back({"assistant", kAnswer});
  }
  messages.push_back({"user", message.c_str()});
  std::string text;
  if (!apply_template(template_, messages, &text)) {
    throw Failure("llama.cpp cannot apply the chat template");
  }
  if (is_first) return text;
  const size_t answer = text.find(kAnswer);
  if (answer == std::string::npos) throw Failure("the chat template leaves out earlier answers");
  return text.substr(answer + sizeof(kAnswer) - 1);
}

}  // namespace mipruner::cli
