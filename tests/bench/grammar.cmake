# Masks at a vocabulary of real size, where one is at hand (its licence keeps it out of this repository).
set(MOOTHALL_REFERENCE_TOKENIZER ${CMAKE_SOURCE_DIR}/../shared/reference/tokenizer CACHE PATH
    "a directory with a real tokenizer.json, for tests that want one")
add_executable(grammar_rate ${CMAKE_CURRENT_LIST_DIR}/grammar_rate.c)
target_link_libraries(grammar_rate PRIVATE mh_model)
set_target_properties(grammar_rate PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
if(EXISTS ${MOOTHALL_REFERENCE_TOKENIZER}/tokenizer.json)
    add_test(NAME grammar_rate COMMAND grammar_rate ${MOOTHALL_REFERENCE_TOKENIZER} 8 102400 50 1000 50)
    set_tests_properties(grammar_rate PROPERTIES LABELS bench TIMEOUT 120 RUN_SERIAL ON)
endif()
