# The engine's log-probs against a float64 reference (numpy) on fresh random checkpoints, and against committed
# vectors of transformers.
add_executable(logprobs ${CMAKE_CURRENT_LIST_DIR}/logprobs.c)
target_link_libraries(logprobs PRIVATE mh_model)
set_target_properties(logprobs PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME model_parity COMMAND ${TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/model_parity.py $<TARGET_FILE:logprobs>)
set_tests_properties(model_parity PROPERTIES LABELS parity TIMEOUT 300 SKIP_RETURN_CODE 77)
add_test(NAME model_vectors COMMAND ${TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/model_vectors.py $<TARGET_FILE:logprobs>
         ${CMAKE_SOURCE_DIR}/tests/vectors/model)
set_tests_properties(model_vectors PROPERTIES LABELS parity TIMEOUT 120 SKIP_RETURN_CODE 77)
