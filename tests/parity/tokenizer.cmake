# The tokenizer against the `tokenizers` library, on fresh random texts.  Skipped where the library is not there.
add_executable(tokenizer_ids ${CMAKE_CURRENT_LIST_DIR}/tokenizer_ids.c)
target_link_libraries(tokenizer_ids PRIVATE mh_model)
set_target_properties(tokenizer_ids PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
set(MOOTHALL_REFERENCE_TOKENIZER ${CMAKE_SOURCE_DIR}/../shared/reference/tokenizer CACHE PATH
    "a directory with the real vocabulary, for the parity test")
foreach(which real demo variants)
    add_test(NAME tokenizer_parity_${which} COMMAND ${TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/tokenizer_parity.py ${which}
             --program $<TARGET_FILE:tokenizer_ids> --real ${MOOTHALL_REFERENCE_TOKENIZER}
             --demo ${CMAKE_SOURCE_DIR}/deploy/demo/model)
    set_tests_properties(tokenizer_parity_${which} PROPERTIES LABELS parity TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()
