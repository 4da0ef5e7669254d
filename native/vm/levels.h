// The order in which a fold over a tree computes its nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vm/error.h"
#include "vm/program.h"
#include "vm/value.h"

namespace taut::vm {

// Lists the nodes of a tree by height and case. Keeps its memory for the next tree.
class Levels {
   public:
    // Starts with the root; false when it is refused.
    bool start(Object* root, const std::vector<NodeCase>& cases, Error& error);
    // Visits one node more, parents before children; false when the tree is refused. `more` tells whether there is one.
    bool more() const { return visited_ < nodes_.size(); }
    bool visit(Error& error);
    std::size_t bytes() const { return nodes_.size() * (sizeof(Node) + sizeof(Value) + 5 * sizeof(std::int64_t)); }
    // After the last: puts them in order, and gives the number of steps, each all nodes of one height and case.
    std::size_t sort();

    std::size_t count() const { return nodes_.size(); }
    // The nodes step by step.
    Object* object(std::size_t row) const { return nodes_[order_[row]].object; }
    // For each step its case, first row, rows and the first of its words; then the words of all steps: for each child
    // position the rows of the children, which are in earlier steps.
    std::size_t word_count() const { return 4 * steps_ + nodes_.size() - 1; }
    void write(std::int64_t* words) const;

   private:
    struct Node {
        Object* object;
        std::uint32_t kind;  // which case
        std::uint32_t parent;
        std::uint32_t first_child;  // the others follow
        std::uint32_t height;
        std::uint32_t row;
    };
    bool add(Object* object, std::uint32_t parent, Error& error);
    template <class Key>
    void sort_by(std::size_t keys, const Key& key);
    bool begins_step(std::size_t row) const;

    const std::vector<NodeCase>* cases_ = nullptr;
    std::vector<Node> nodes_;
    std::vector<std::uint32_t> order_;
    std::vector<std::uint32_t> other_order_;
    std::vector<std::uint32_t> starts_;
    std::size_t visited_ = 0;
    std::size_t steps_ = 0;
};

}  // namespace taut::vm
