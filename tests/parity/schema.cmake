# JSON Schema: the standard's own test suite, and random schemas with python's `jsonschema` as the judge.  Skipped where those
# are not there (run.sh gets both from PyPI).
add_executable(schema_accepts ${CMAKE_CURRENT_LIST_DIR}/schema_accepts.c)
target_link_libraries(schema_accepts PRIVATE mh_model)
set_target_properties(schema_accepts PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
foreach(which suite random)
    add_test(NAME schema_${which} COMMAND ${TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/schema_${which}.py
             --program $<TARGET_FILE:schema_accepts> --tokenizer ${CMAKE_SOURCE_DIR}/deploy/demo/model)
    set_tests_properties(schema_${which} PROPERTIES LABELS parity TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()
