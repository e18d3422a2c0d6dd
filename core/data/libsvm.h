#pragma once
// LIBSVM text: a row a line, "label index:value index:value ...", indices from 1 and rising, plain
// or gzip. Blanks at the end of a line, rows without features, Windows line ends and empty lines at
// the end are fine; "#" starts a comment. Labels {-1, +1}, {0, 1}, {1, 2} or any integers become
// classes 0, 1, ... in rising order.

#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/data/labeled_data.h"

namespace tw {

// `min_features`: the number of columns if the file names fewer (a9a.t lacks the last of a9a's
// 123). DataError "file:line: ...": a label or value that is no finite number, an index below 1 or
// not rising, no rows at all.
StatusOr<SparseRows> ReadLibsvm(const std::string& path, int64_t min_features = 0);

// The same for text in memory; `name` stands in errors.
StatusOr<SparseRows> ParseLibsvm(std::string_view text, const std::string& name,
                                 int64_t min_features = 0);

}  // namespace tw
