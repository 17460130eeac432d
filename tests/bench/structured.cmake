# What a grammar costs beside plain text at 32 sequences; nine tenths of its rate are promised, neighbours get a little.
add_executable(structured_rate ${CMAKE_CURRENT_LIST_DIR}/structured_rate.c)
target_link_libraries(structured_rate PRIVATE mh_worker)
set_target_properties(structured_rate PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME structured_rate COMMAND structured_rate ${CMAKE_SOURCE_DIR}/deploy/demo/model 1 32 3 0.85)
set_tests_properties(structured_rate PROPERTIES LABELS bench TIMEOUT 120)
