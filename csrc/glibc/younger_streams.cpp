// Of libstdc++ 9 (GLIBCXX_3.4.26), which machines with glibc 2.28 may be without; torch's headers
// use both. Instantiated here, they are a part of this library.
#include <sstream>

template std::stringstream::basic_stringstream();
template std::ostringstream::basic_ostringstream();
