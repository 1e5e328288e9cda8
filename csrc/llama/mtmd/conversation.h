// A message and its answer: what -p does once and a chat again and again.
#pragma once

#include <string>
#include <vector>

#include "generate.h"
#include "interrupt.h"
#include "prompt.h"

namespace mipruner::cli {

class Conversation {
 public:
  Conversation(Session* session, const Options& options, Log* log);

  // Answers on standard output and says on standard error what was pruned and how long it took.
  // `interrupts`: NULL, or what may end the answer early. Throws Failure; the message then was
  // never said.
  void say(const std::string& message, const std::vector<Image>& images,
           InterruptScope* interrupts);

  void set_keep(const Keep& keep);
  void clear();  // the model remembers nothing

 private:
  Evaluation evaluate(const Prompt& prompt);
  Answer answer(InterruptScope* interrupts);

  Session* session_;
  const Options& options_;
  Log* log_;
  ChatFormat format_;
  Sampler sampler_;
  mipruner_select_params select_;
  Progress progress_;
};

}  // namespace mipruner::cli
