// What goes to standard output: the answer, the table, the help.
#pragma once

#include <string>

namespace mipruner::cli {

// The reader of a pipe has left. Not an error: nobody wants the rest.
struct ClosedPipe {};

// Turns the signal of a closed pipe into an error code, so that files can be finished.
void ignore_closed_pipes();

// Ends the program as that signal would have.
[[noreturn]] void end_by_closed_pipe();

// Writes at once. Throws ClosedPipe, and Failure where the text did not get out.
void write_output(const std::string& text);

}  // namespace mipruner::cli
