// Of glibc 2.35. The unwinder in libgcc_eh.a asks it for the unwinding table of the code at an
// address. Looked up here as that unwinder did before there was such a function.
#include <dlfcn.h>
#include <link.h>

#include <cstdint>

namespace {

struct Search {
  uintptr_t address;
  dl_find_object* found;
};

int look_into(dl_phdr_info* object, size_t /*size*/, void* data) {
  const auto& search = *static_cast<const Search*>(data);
  uintptr_t begin = 0, end = 0, table = 0;
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr) & part = object->dlpi_phdr[i];
    const uintptr_t start = object->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_GNU_EH_FRAME) table = start;
    const bool here = search.address >= start && search.address - start < part.p_memsz;
    if (part.p_type == PT_LOAD && here) {
      begin = start;
      end = start + part.p_memsz;
    }
  }
  if (end == 0) return 0;  // the next object
  search.found->dlfo_map_start = reinterpret_cast<void*>(begin);
  search.found->dlfo_map_end = reinterpret_cast<void*>(end);
  search.found->dlfo_eh_frame = reinterpret_cast<void*>(table);
  return table != 0 ? 1 : -1;
}

}  // namespace

extern "C" __attribute__((visibility("hidden"))) int _dl_find_object(
    void* address, dl_find_object* found) noexcept {
  *found = {};
  Search search{reinterpret_cast<uintptr_t>(address), found};
  return dl_iterate_phdr(look_into, &search) == 1 ? 0 : -1;
}
