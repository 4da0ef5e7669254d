#include "vm/levels.h"

#include <algorithm>
#include <string>
#include <utility>

namespace taut::vm {

bool Levels::start(Object* root, const std::vector<NodeCase>& cases, Error& error) {
    cases_ = &cases;
    nodes_.clear();
    visited_ = 0;
    return add(root, 0, error);
}

bool Levels::add(Object* object, std::uint32_t parent, Error& error) {
    std::uint32_t kind = 0;
    while (kind < cases_->size() && (*cases_)[kind].tag != object->tag) ++kind;
    if (kind == cases_->size()) {
        return error.set(Fault::guard,
                         "a node has the tag " + std::to_string(object->tag) + ", which no case is given for");
    }
    nodes_.push_back({object, kind, parent, 0, 0, 0});
    return true;
}

bool Levels::visit(Error& error) {
    const auto number = static_cast<std::uint32_t>(visited_++);
    const Object& object = *nodes_[number].object;
    nodes_[number].first_child = static_cast<std::uint32_t>(nodes_.size());
    for (const std::uint32_t position : (*cases_)[nodes_[number].kind].children) {
        const bool exists = position < object.fields.size();
        if (!exists || object.fields[position].kind != Kind::object) {
            const std::string found = exists ? kind_name(object.fields[position].kind) : "missing";
            return error.set(Fault::guard,
                             "field " + std::to_string(position) + " of a node with the tag " +
                                 std::to_string(object.tag) + " is " + found,
                             "a child, which is an object");
        }
        if (!add(object.fields[position].object, number, error)) return false;
    }
    return true;
}

// Stable, by a key below `keys`.
template <class Key>
void Levels::sort_by(std::size_t keys, const Key& key) {
    starts_.assign(keys + 1, 0);
    for (const Node& node : nodes_) ++starts_[key(node) + 1];
    for (std::size_t i = 1; i <= keys; ++i) starts_[i] += starts_[i - 1];
    other_order_.resize(nodes_.size());
    for (const std::uint32_t number : order_) other_order_[starts_[key(nodes_[number])]++] = number;
    std::swap(order_, other_order_);
}

std::size_t Levels::sort() {
    // Children come after their parents.
    for (std::size_t i = nodes_.size() - 1; i > 0; --i) {
        Node& parent = nodes_[nodes_[i].parent];
        parent.height = std::max(parent.height, nodes_[i].height + 1);
    }
    order_.resize(nodes_.size());
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::uint32_t>(i);
    if (cases_->size() > 1) sort_by(cases_->size(), [](const Node& node) { return node.kind; });
    sort_by(nodes_[0].height + 1, [](const Node& node) { return node.height; });
    steps_ = 0;
    for (std::size_t row = 0; row < order_.size(); ++row) {
        nodes_[order_[row]].row = static_cast<std::uint32_t>(row);
        steps_ += begins_step(row);
    }
    return steps_;
}

bool Levels::begins_step(std::size_t row) const {
    if (row == 0) return true;
    const Node& before = nodes_[order_[row - 1]];
    const Node& node = nodes_[order_[row]];
    return before.height != node.height || before.kind != node.kind;
}

void Levels::write(std::int64_t* words) const {
    std::int64_t* step = words;
    std::int64_t next = static_cast<std::int64_t>(4 * steps_);
    for (std::size_t first = 0; first < order_.size(); step += 4) {
        std::size_t end = first + 1;
        while (end < order_.size() && !begins_step(end)) ++end;
        const std::uint32_t kind = nodes_[order_[first]].kind;
        step[0] = kind;
        step[1] = static_cast<std::int64_t>(first);
        step[2] = static_cast<std::int64_t>(end - first);
        step[3] = next;
        for (std::size_t child = 0; child < (*cases_)[kind].children.size(); ++child) {
            for (std::size_t row = first; row < end; ++row) {
                words[next++] = nodes_[nodes_[order_[row]].first_child + child].row;
            }
        }
        first = end;
    }
}

}  // namespace taut::vm
